def greeting
  "Hello from Sinatra"
end
