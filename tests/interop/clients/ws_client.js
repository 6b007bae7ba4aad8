// A client made with `ws` for Node, driven by a test: README.md beside it has the orders and events.
//
//   node ws_client.js URL deflate=0|1 [protocols=NAME,NAME] [origin=ORIGIN] [version=N]
"use strict";

const readline = require("readline");
const WebSocket = require("ws");

const [url, ...words] = process.argv.slice(2);
const options = { handshakeTimeout: 20000 };
let protocols = [];
for (const word of words) {
    const [name, value] = [word.slice(0, word.indexOf("=")), word.slice(word.indexOf("=") + 1)];
    if (name === "deflate")
        options.perMessageDeflate = value === "1" ? { threshold: 0 } : false;
    else if (name === "protocols")
        protocols = value.split(",");
    else if (name === "origin")
        options.origin = value;
    else if (name === "version")
        options.protocolVersion = Number(value);
    else
        throw new Error(`unknown option ${word}`);
}

function say(...words) {
    process.stdout.write(words.join(" ") + "\n");
}

const hex = (content) => Buffer.from(content).toString("hex");
const client = new WebSocket(url, protocols, options);

client.on("open", () => say("open", hex(client.extensions), hex(client.protocol)));
client.on("message", (data, isBinary) => say("message", isBinary ? "binary" : "text", hex(data)));
client.on("pong", (data) => say("pong", hex(data)));
client.on("close", (code, reason) => say("close", code, hex(reason)));
client.on("error", (error) => say("failed", hex(error.message)));
client.on("unexpected-response", (request, response) => {
    say("refused", response.statusCode);
    request.destroy();
});

const orders = {
    send: (kind, ...parts) => parts.forEach((part, i) => client.send(
        Buffer.from(part, "hex"), { binary: kind === "binary", fin: i === parts.length - 1 })),
    ping: (payload) => client.ping(Buffer.from(payload, "hex")),
    close: (code, reason) => client.close(Number(code), Buffer.from(reason, "hex")),
};

readline.createInterface({ input: process.stdin }).on("line", (line) => {
    const [order, ...words] = line.split(" ");
    orders[order](...words);
}).on("close", () => process.exit(0));
