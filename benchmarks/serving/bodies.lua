-- wrk's script: each request has the next body of the file BODIES (one a line); the figures go out as one line of JSON.
local bodies = {}
for line in io.lines(os.getenv("BODIES")) do
  bodies[#bodies + 1] = line
end
local headers = { ["Content-Type"] = "application/json" }
local place = 0

function request()
  place = place % #bodies + 1
  return wrk.format("POST", nil, headers, bodies[place])
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\nfigures {"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p95_ms": %.3f, "p99_ms": %.3f, "refused": %d, "failed": %d}\n',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
