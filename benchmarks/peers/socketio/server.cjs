// Socket.IO as its documentation sets it up for production: WebSocket alone, no compression, native
// masking (bufferutil). A client is in the room that it asks for; a `publish` event goes to one.
// Arguments: the port; then `recovery` for connection state recovery; then the port of the Redis whose
// streams keep what has to be recovered, or it is kept in memory.
"use strict";

const { createServer } = require("node:http");
const { Server } = require("socket.io");

const RECOVERY = { connectionStateRecovery: { maxDisconnectionDuration: 2 * 60 * 1000 } };

async function redisClient(port) {
  const { createClient } = require("redis");
  const client = createClient({ url: `redis://127.0.0.1:${port}` });
  // Redis is gone for a moment when both are killed; without a listener that would end the process.
  client.on("error", (error) => console.error(error.message));
  await client.connect();
  return client;
}

function streams(client) {
  const { createAdapter } = require("@socket.io/redis-streams-adapter");
  return { adapter: createAdapter(client, { onlyPlaintext: true }) };
}

async function serve(port, recovery, redisPort) {
  const http = createServer();
  const redis = redisPort && (await redisClient(redisPort));
  const io = new Server(http, {
    transports: ["websocket"],
    perMessageDeflate: false,
    serveClient: false,
    ...(recovery && RECOVERY),
    ...(redis && streams(redis)),
  });
  io.on("connection", (socket) => {
    // A recovered socket is in its rooms already.
    if (!socket.recovered && socket.handshake.auth.room) socket.join(socket.handshake.auth.room);
    socket.on("publish", (room, message, accepted) => {
      io.to(room).emit("message", message);
      // An emit says nothing of when it is stored; what is asked for behind it on the same
      // connection is answered after that.
      if (redis) redis.ping().then(() => accepted());
      else accepted();
    });
  });
  http.listen({ port: Number(port), host: "127.0.0.1", backlog: 4096 });
}

serve(...process.argv.slice(2));
