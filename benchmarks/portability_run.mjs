// One ONNX file in onnxruntime-web under node: node portability_run.mjs PACKAGES MODEL IMAGES LOGITS
// PACKAGES is the folder that npm installed into, IMAGES and LOGITS are .npy files as in portability_run.py.
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";

const BATCH = 64;
const [packages, model, images, out] = process.argv.slice(2);
const ort = createRequire(`${packages}/`)("onnxruntime-web");
ort.env.wasm.numThreads = 1;

const file = readFileSync(images);
const end = 10 + file.readUInt16LE(8); // of the header of .npy, version 1
const shape = /'shape': \(([^)]*)\)/.exec(file.toString("latin1", 10, end))[1].split(",").map(Number);
const [count, ...sides] = shape;
const size = sides.reduce((product, side) => product * side, 1);

const session = await ort.InferenceSession.create(readFileSync(model));
const logits = [];
for (let start = 0; start < count; start += BATCH) {
  const batch = Math.min(BATCH, count - start);
  const pixels = new Uint8Array(file.subarray(end + start * size, end + (start + batch) * size));
  const results = await session.run({ pixels: new ort.Tensor("uint8", pixels, [batch, ...sides]) });
  logits.push(...results.logits.data);
}
const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${count}, ${logits.length / count}), }`;
const header = Buffer.alloc(128, " ");
header.write("\x93NUMPY\x01\x00", "latin1");
header.writeUInt16LE(118, 8);
header.write(text, 10);
header.write("\n", 127);
writeFileSync(out, Buffer.concat([header, Buffer.from(new Float32Array(logits).buffer)]));
