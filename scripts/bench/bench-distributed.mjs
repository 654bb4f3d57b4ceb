// Training in two processes over Gloo, one thread each, against one process with one thread: milliseconds an image, as
// `cleft train` itself counts them, loader and all. Two rows: the same batch in each process, and the same batch together.
//   npm run bench -- distributed [--rounds N] [--json]
import { spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { writePhantoms } from '../../dist/data/phantoms/index.js'
import { prepareAll } from '../real/dataset.mjs'
import { report, takeTurns } from './rows.mjs'

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url))
const tokenizer = fileURLToPath(new URL('./tokenizer.json', import.meta.url))
const goal = 1 / 1.7
const batchSize = 16
/** Steps that are timed, after as many to warm up. */
const timed = 3

/** A ViT of 5.5 million parameters at 224 px, and a small language model that trains too. */
const optionsOf = (place, data, prepared) => ({
  stage: 'pretrain',
  data,
  prepared,
  image: {
    model: {
      model_type: 'dinov2_with_registers',
      hidden_size: 192,
      num_hidden_layers: 12,
      num_attention_heads: 3,
      patch_size: 14,
      image_size: 224,
      num_register_tokens: 4,
    },
  },
  text: {
    model: { model_type: 'gpt2', n_embd: 192, n_layer: 4, n_head: 3, n_positions: 128, vocab_size: 512 },
    tokenizer,
  },
  peft: null,
  steps: 2 * timed,
  logEvery: timed,
  checkpointEvery: 10_000,
  validation: null,
  workers: 1,
  out: join(place, 'run'),
})

/** Milliseconds an image of the second half of a run. */
async function timeOf(place, config, more) {
  rmSync(join(place, 'run'), { recursive: true, force: true })
  const child = spawn(process.execPath, [main, 'train', config, '--json', ...more], {
    env: { ...process.env, OMP_NUM_THREADS: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let [last, errors] = [null, '']
  child.stderr.on('data', (text) => {
    errors += text
  })
  for await (const line of createInterface({ input: child.stdout })) {
    const event = JSON.parse(line)
    if (event.type === 'step') last = event
  }
  if (last?.step !== 2 * timed) throw new Error(`cleft train failed: ${errors}`)
  return 1000 / last.samplesPerSecond
}

export async function run({ json, args }) {
  const rounds = args.includes('--rounds') ? Number(args[args.indexOf('--rounds') + 1]) : 3
  const place = mkdtempSync(join(tmpdir(), 'cleft-bench-'))
  try {
    mkdirSync(join(place, 'data'))
    await writePhantoms({ kind: 'chexpert', out: join(place, 'data'), patients: 160, seed: 1 })
    const data = { kind: 'chexpert', root: join(place, 'data', 'CheXpert-v1.0-small'), holdout: null, split: 'train' }
    await prepareAll(data, join(place, 'prepared'))
    const config = join(place, 'run.json')
    writeFileSync(config, JSON.stringify(optionsOf(place, data, join(place, 'prepared'))))
    const train = (size, more = []) => timeOf(place, config, ['--set', `batchSize=${size}`, ...more])
    for (const [name, size] of [
      ['the same batch in each process', batchSize],
      ['the same batch together', batchSize / 2],
    ]) {
      const load = loadavg()[0]
      const two = () => train(size, ['--processes', '2'])
      const times = await takeTurns(rounds, two, () => train(batchSize))
      const more = { processes: 2, batchSize: size, rounds, loadBefore: load }
      report({ name: `two processes, ${name}`, unit: 'ms an image', ...times, goal, ...more }, json)
    }
  } finally {
    rmSync(place, { recursive: true })
  }
}
