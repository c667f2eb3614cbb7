#!/usr/bin/env node
// Answers /YYYY-MM-DD with the day's place in its year, and / with a page about today.

import fastify from "fastify";
import { dayOfYear, page } from "./dist/page.js";

const server = fastify({ logger: true });

server.get("/", async (_request, reply) => reply.type("text/html").send(page(new Date())));

const schema = {
  params: { type: "object", properties: { day: { type: "string", format: "date" } } },
};
server.get("/:day", { schema }, async (request) => {
  const { day } = request.params;
  return { day, ...dayOfYear(new Date(day)) };
});

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.on(signal, () => server.close().then(() => process.exit(0)));
}
await server.listen({ host: "0.0.0.0", port: 8091 });
