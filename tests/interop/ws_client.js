// A client made with `ws` for Node, driven by a test: prints one JSON object per event, obeys one per line of stdin.
//
//   node ws_client.js URL [deflate=0|1] [origin=ORIGIN] [version=N]
"use strict";

const readline = require("readline");
const WebSocket = require("ws");

const [url, ...words] = process.argv.slice(2);
const options = { handshakeTimeout: 20000 };
for (const word of words) {
    const [name, value] = [word.slice(0, word.indexOf("=")), word.slice(word.indexOf("=") + 1)];
    if (name === "deflate")
        options.perMessageDeflate = value === "1" ? { threshold: 0 } : false;
    else if (name === "origin")
        options.origin = value;
    else if (name === "version")
        options.protocolVersion = Number(value);
    else
        throw new Error(`unknown option ${word}`);
}

function say(event) {
    process.stdout.write(JSON.stringify(event) + "\n");
}

const content = (part) => "text" in part ? part.text : Buffer.from(part.hex, "hex");
const client = new WebSocket(url, options);

client.on("open", () => say({ event: "open", extensions: client.extensions, protocol: client.protocol }));
client.on("message", (data, isBinary) => say(
    isBinary ? { event: "message", hex: data.toString("hex") } : { event: "message", text: data.toString("utf8") }));
client.on("pong", (data) => say({ event: "pong", hex: data.toString("hex") }));
client.on("close", (code, reason) => say({ event: "close", code, reason: reason.toString("utf8") }));
client.on("error", (error) => say({ event: "error", message: error.message }));
client.on("unexpected-response", (request, response) => {
    say({ event: "refused", status: response.statusCode });
    request.destroy();
});

const orders = {
    send: (order) => order.parts.forEach(
        (part, i) => client.send(content(part), { binary: "hex" in part, fin: i === order.parts.length - 1 })),
    ping: (order) => client.ping(Buffer.from(order.hex, "hex")),
    close: (order) => client.close(order.code, order.reason),
};

readline.createInterface({ input: process.stdin }).on("line", (line) => {
    const order = JSON.parse(line);
    orders[order.do](order);
}).on("close", () => process.exit(0));
