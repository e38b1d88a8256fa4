-- One line: answers, seconds, octets, p50 and p99 in µs; answers that were not
-- whole or not 200 end it.
function done(summary, latency, requests)
  local e = summary.errors
  if e.connect + e.read + e.write + e.timeout + e.status > 0 then
    io.stderr:write("wrk: ", e.connect, " connects, ", e.read, " reads, ", e.write, " writes, ", e.timeout, " timeouts, ", e.status, " statuses failed\n")
    return
  end
  io.write("\nresult ", summary.requests, " ", summary.duration / 1e6, " ", summary.bytes, " ", latency:percentile(50), " ", latency:percentile(99), "\n")
end
