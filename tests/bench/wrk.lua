-- Sends the records of a file (see traffic.py), each once, and prints what happened as one line of JSON.
-- argv: the file. Read as it is sent: nothing is kept, so memory stays small however long the run.
-- Then, if replies are to be counted that don't say 'paid', each text that says so.

local thread_of_the_run

function setup(thread)
    thread_of_the_run = thread
end

function init(args)
    requests_file = assert(io.open(args[1], "rb"))
    sent, exhausted, unpaid = 0, 0, 0
    if #args > 1 then
        paid = { unpack(args, 2) }
        response = count_unpaid  -- which costs wrk time for every reply
    end
end

function count_unpaid(status, headers, body)
    for _, text in ipairs(paid) do
        if body:find(text, 1, true) then
            return
        end
    end
    unpaid = unpaid + 1
end

function request()
    local length = requests_file:read(6)
    if not length then
        -- Nothing may be sent twice. The run is void; this keeps wrk busy until its end.
        exhausted = 1
        return "GET / HTTP/1.1\r\nhost: gateway\r\n\r\n"
    end
    sent = sent + 1
    return requests_file:read(tonumber(length))
end

function done(summary, latency, requests)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.timeout
    io.write(string.format(
        '{"completed":%d,"seconds":%.6f,"sent":%d,"exhausted":%d,"unpaid":%d,"bad_statuses":%d,"failed":%d,'
            .. '"p50_ms":%.3f,"p90_ms":%.3f,"p99_ms":%.3f,"p999_ms":%.3f,"max_ms":%.3f}\n',
        summary.requests, summary.duration / 1e6, thread_of_the_run:get("sent"),
        thread_of_the_run:get("exhausted"), thread_of_the_run:get("unpaid"), errors.status, failed,
        latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3,
        latency:percentile(99.9) / 1e3, latency.max / 1e3
    ))
end
