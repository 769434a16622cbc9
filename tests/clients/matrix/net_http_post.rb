# One POST with Ruby's Net::HTTP.

require "json"
require "net/http"

order = { video: "intro.mp4" }.to_json
answer = Net::HTTP.post(URI(ARGV.last), order, "Content-Type" => "application/json")
puts({
  client: "net/http",
  status: answer.code.to_i,
  attempts: answer["samekey-attempts"].to_s,
  stop: answer["samekey-stop"].to_s,
  id: JSON.parse(answer.body)["id"],
  key: answer["idempotency-key"].to_s,
}.to_json)
