// Leaves a loop over batches and closes the threads that still work ahead for it. Says so when they are closed.
import { fileURLToPath } from 'node:url'
import { DataLoader, DecoderPool, Problems } from '../../../dist/data/index.js'

const attributes = { sex: null, age: null, view: null, side: null }
const samples = Array.from({ length: 96 }, (_, row) => ({
  row,
  path: 'cxr8_mono2_jpeg.dcm',
  patient: String(row),
  caption: null,
  promptPrefix: null,
  label: null,
  findings: null,
  attributes,
}))
const root = fileURLToPath(new URL('../../reference/dicom', import.meta.url))
const dataset = { kind: 'folder', root, findings: [], classes: [], samples, problems: new Problems(), hash: 'none' }
const decoder = new DecoderPool()
const loader = new DataLoader(dataset, { batchSize: 16, seed: 1, size: 112, decoder })
for await (const batch of loader) {
  batch[Symbol.dispose]()
  if (batch.position === 2) break
}
await decoder.close()
console.log('closed')
