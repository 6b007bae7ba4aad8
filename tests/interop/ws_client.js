// A client made with `ws` for Node, driven by a test: prints one JSON object per event, obeys one per line of stdin.
//
//   node ws_client.js URL [origin=ORIGIN] [version=N]
"use strict";

const crypto = require("crypto");
const readline = require("readline");
const WebSocket = require("ws");

const [url, ...words] = process.argv.slice(2);
const options = { handshakeTimeout: 20000 };
for (const word of words) {
    const [name, value] = [word.slice(0, word.indexOf("=")), word.slice(word.indexOf("=") + 1)];
    if (name === "origin")
        options.origin = value;
    else if (name === "version")
        options.protocolVersion = Number(value);
    else
        throw new Error(`unknown option ${word}`);
}

function say(event) {
    process.stdout.write(JSON.stringify(event) + "\n");
}

const client = new WebSocket(url, options);
let large = null; // what was sent last with "large"

client.on("open", () => say({
    event: "open", port: client._socket.localPort, extensions: client.extensions, protocol: client.protocol,
}));

client.on("message", (data, isBinary) => {
    if (large && data.length === large.length) {
        say({ event: "large", size: data.length, same: isBinary && data.equals(large) });
        large = null;
    } else if (isBinary) {
        say({ event: "message", hex: data.toString("hex") });
    } else {
        say({ event: "message", text: data.toString("utf8") });
    }
});

client.on("pong", (data) => say({ event: "pong", text: data.toString("utf8") }));
client.on("close", (code, reason) => say({ event: "close", code, reason: reason.toString("utf8") }));
client.on("error", (error) => say({ event: "error", message: error.message }));
client.on("unexpected-response", (request, response) => {
    say({ event: "refused", status: response.statusCode });
    request.destroy();
});

const orders = {
    text: (order) => client.send(order.text),
    binary: (order) => client.send(Buffer.from(order.hex, "hex")),
    fragments: (order) => order.parts.forEach(
        (part, i) => client.send(part, { fin: i === order.parts.length - 1 })),
    large: (order) => {
        large = crypto.randomBytes(order.size);
        client.send(large);
    },
    ping: (order) => client.ping(order.text),
    close: (order) => client.close(order.code, order.reason),
};

readline.createInterface({ input: process.stdin }).on("line", (line) => {
    const order = JSON.parse(line);
    orders[order.do](order);
}).on("close", () => process.exit(0));
