-- The request stands in the environment; one line of JSON at the end.
wrk.method = os.getenv("LOAD_METHOD")
wrk.body = os.getenv("LOAD_BODY")
wrk.headers["Authorization"] = os.getenv("LOAD_AUTHORIZATION")
wrk.headers["Content-Type"] = os.getenv("LOAD_CONTENT_TYPE")

function done(summary, latency, requests)
    local e = summary.errors
    io.write(string.format('LOAD {"requests":%d,"micros":%d,"errors":%d}\n', summary.requests, summary.duration,
        e.connect + e.read + e.write + e.status + e.timeout))
end
