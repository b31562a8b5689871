import { createServer } from "node:http";

import { greeting } from "./greeting.js";

const port = Number(process.env.PORT ?? 3000);

const server = createServer((request, response) => {
  switch (request.url) {
    case "/":
      response.setHeader("Content-Type", "text/plain; charset=utf-8");
      response.end(`${greeting}\n`);
      break;
    case "/health":
      response.setHeader("Content-Type", "application/json");
      response.end(JSON.stringify({ status: "ok" }));
      break;
    default:
      response.statusCode = 404;
      response.end();
  }
});

server.listen(port, () => console.log(`listening on port ${port}`));
