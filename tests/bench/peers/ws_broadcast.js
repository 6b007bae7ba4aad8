// npm's ws: what a client sends goes to all.
'use strict';

const { WebSocket, WebSocketServer } = require('ws');

const server = new WebSocketServer({ host: '127.0.0.1', port: Number(process.argv[2]) });

server.on('connection', (client) => {
  client.on('error', () => client.terminate());
  client.on('message', (data, binary) => {
    for (const each of server.clients) {
      if (each.readyState === WebSocket.OPEN) each.send(data, { binary });
    }
  });
});
