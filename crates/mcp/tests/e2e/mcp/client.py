"""Works with `patchwire mcp` by PyPI's mcp client, as an editor's agent does.

    client.py PROGRAM ROOT MODE

The root's app is pushed, broken, pushed again, and repaired. The client checks every structured
result against the schema of its tool, also one that is an error, and raises where it doesn't fit.
"""

import asyncio
import sys
from pathlib import Path

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters


async def main(program: str, root: Path, mode: str) -> None:
    app = root / "app.py"
    works = app.read_text()
    server = StdioServerParameters(command=program, args=["mcp", "-v", "--wait", "5s"], cwd=root)
    async with Client(server, mode=mode) as client:
        print("speaks", client.session.protocol_version)
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == {"push_changes", "app_status", "app_logs"}, tools
        for tool in tools.values():
            assert tool.output_schema and tool.annotations and tool.title, tool

        progress = []

        async def seen(done: float, _total: float | None, message: str | None) -> None:
            progress.append((done, message))

        async def call(tool: str, **arguments):
            progress.clear()
            return await client.call_tool(tool, arguments, progress_callback=seen)

        # Until something is pushed, and where nothing can be, results fit their schemas too.
        for tool in tools:
            assert (await call(tool, root="nowhere")).is_error
            assert (await call(tool, deployment="nowhere")).is_error
            assert (await call(tool, no_such="argument")).is_error

        app.write_text(works.replace("Hello", f"Hello over {mode}"))
        pushed = await call("push_changes", message=f"over {mode}")
        assert not pushed.is_error, pushed
        assert pushed.structured_content["status"] == "done", pushed
        assert pushed.structured_content["agents"][0]["app"]["running"], pushed
        assert "ready" in pushed.content[0].text, pushed
        told = [message for _, message in progress]
        assert any("sending" in message for message in told), told
        assert "the app reloads" in told, told
        grown = [done for done, _ in progress]
        assert grown == sorted(set(grown)), grown

        app.write_text("raise RuntimeError('does not start')\n")
        crashed = await call("push_changes")
        assert crashed.is_error, crashed
        assert crashed.structured_content["status"] == "rolled-back", crashed
        for said in crashed.content[0].text, str(crashed.structured_content["agents"]):
            assert "Traceback" in said and "RuntimeError: does not start" in said, crashed

        status = await call("app_status")
        assert not status.is_error, status
        assert status.structured_content["last_push"]["message"] == f"over {mode}", status
        logs = await call("app_logs", lines=5)
        assert not logs.is_error, logs
        assert f"Hello over {mode}" in logs.content[0].text, logs
    app.write_text(works)


asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
