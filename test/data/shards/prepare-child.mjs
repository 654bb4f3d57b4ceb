// Prepares a data set in a process of its own, which tests kill: prepare-child.mjs FOLDER COUNT [MILLISECONDS]
import { setTimeout } from 'node:timers/promises'
import { prepareDataset } from '../../../dist/data/shards/prepare.js'
import { exitOnSignals } from '../../../dist/setup/exit.js'
import { prepareImage } from '../loader/decode-module.mjs'

exitOnSignals()
const [folder, count, milliseconds = '5'] = process.argv.slice(2)
const samples = Array.from({ length: Number(count) }, (_, row) => ({ row, path: `image${row}.png` }))
const settings = { size: 64, bits: 8, windowing: 'published' }
const decoder = {
  settings,
  concurrency: 2,
  async prepare(source) {
    await setTimeout(Number(milliseconds))
    return prepareImage(source, settings)
  },
}
try {
  const report = await prepareDataset({ kind: 'table', root: '/data', samples }, folder, { decoder, shardSize: 4 })
  console.log(JSON.stringify({ prepared: report.prepared, kept: report.kept }))
} catch (error) {
  console.error(error.message)
  process.exitCode = 1
}
