// Requests of Node's fetch and FormData. Arguments: the server's URL, the file of an image. Prints one JSON object: for
// each request its status and the SHA-256 of its body.

import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";

const [url, file] = process.argv.slice(2);
const bytes = await readFile(file);
const points = JSON.stringify([[10, 20], [30.5, 40]]);
const query = "side=128&layer=res5&format=npy";

const form = new FormData();
form.append("points", new Blob([points], { type: "application/json" }));
form.append("side", "128");
form.append("layer", "res5");
form.append("format", "npy");
form.append("image", new Blob([bytes], { type: "image/jpg" }), "phöto \"1\"; name=points.jpg");

const lines = bytes.toString("base64").replace(/(.{76})/g, "$1\r\n");
const json = (images) => ({
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ images, points: [[10, 20], [30.5, 40]], side: 128, layer: "res5", format: "npy" }),
});
const raw = `${url}/features?${query}&points=${encodeURIComponent(points)}`;

const requests = {
  form: [`${url}/features`, { method: "POST", body: form }],
  bytes: [raw, { method: "POST", body: bytes }],
  blob: [raw, { method: "POST", body: new Blob([bytes], { type: "image/jpg" }) }],
  text: [raw, { method: "POST", body: bytes, headers: { "Content-Type": "text/plain;charset=UTF-8" } }],
  base64: [`${url}/features`, json([bytes.toString("base64")])],
  base64url: [`${url}/features`, json([bytes.toString("base64url")])],
  lines: [`${url}/features`, json([lines])],
  dataUrl: [`${url}/features`, json([`data:image/jpeg;base64,${bytes.toString("base64")}`])],
  mark: [`${url}/features`, { ...json([]), body: `\ufeff${json([bytes.toString("base64")]).body}` }],
};
const replies = {};
for (const [name, [address, options]] of Object.entries(requests)) {
  const reply = await fetch(address, options);
  const body = Buffer.from(await reply.arrayBuffer());
  replies[name] = { status: reply.status, sha256: createHash("sha256").update(body).digest("hex") };
}
console.log(JSON.stringify(replies));
