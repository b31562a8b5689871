require "sinatra/base"
require "json"

require_relative "greeting"

class App < Sinatra::Base
  get "/" do
    @greeting = greeting
    erb :index
  end

  get "/health" do
    content_type :json
    { status: "ok" }.to_json
  end
end
