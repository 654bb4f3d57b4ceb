// Closes threads while they work: `node close-child.mjs FILE...`. Says so when they are closed.
import { DecoderPool } from '../../../dist/data/loader/decoders.js'

const pool = new DecoderPool({ workers: 2 })
const [first, ...others] = process.argv.slice(2)
await pool.prepare(first)
for (const file of others) pool.prepare(file).catch(() => {})
await pool.close()
console.log('closed')
