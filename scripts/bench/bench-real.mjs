// The training step on real X-rays with a real language model, by the task that train() runs, against the same in Python
// (peer_real.py) in three styles. Batch 32.
//   npm run bench -- real --images DIR --table CSV --lm DIR [--dtype float32|bfloat16] [--rounds N] [--json]
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseOptions } from '../../dist/train/train.js'
import { prepareAll, readImages, writeFold } from '../real/dataset.mjs'
import {
  findPython,
  forgetPeakMemory,
  Peer,
  peakMemory,
  peerDtype,
  productRate,
  report,
  reportProfile,
  takeSteps,
} from './rows.mjs'
import { TaskSteps } from './task-steps.mjs'

const batchSize = 32
const goals = {
  float32: { official: 1 / 8, tuned: 1 / 2, dedup: 1 / 1.8 },
  bfloat16: { official: 1 / 14, tuned: 1 / 4.5, dedup: 1 / 2.8 },
}
const names = { official: 'the published style', tuned: 'the tuned style', dedup: 'equal captions once' }
const columns = {
  image: 'Image Index',
  findings: 'Finding Labels',
  patient: 'Patient ID',
  sex: 'Patient Gender',
  age: 'Patient Age',
  view: 'View Position',
}

export async function run({ json, args }) {
  const option = (name) => (args.includes(name) ? args[args.indexOf(name) + 1] : undefined)
  const [images, table, lm] = ['--images', '--table', '--lm'].map((name) => {
    const value = option(name)
    if (value === undefined) throw new Error(`expected ${name}; see the first lines of scripts/bench/bench-real.mjs`)
    return value
  })
  const rounds = Number(option('--rounds') ?? 3)
  const python = findPython(['torch', 'transformers', 'peft', 'PIL'])
  if (python === null) console.error('no Python with torch, transformers, peft and Pillow was found: rows have no peer')
  const place = mkdtempSync(join(tmpdir(), 'cleft-bench-'))
  try {
    const read = await readImages({ images, table, columns, words: { No_findings: 'no finding' } })
    const data = writeFold({ images, folder: place, fold: 0, read, random: false })
    await prepareAll(data, join(place, 'prepared'))
    for (const dtype of [option('--dtype') ?? ['float32', 'bfloat16']].flat()) {
      await measure({ data, images, table, lm, place, dtype, rounds, python, json })
    }
  } finally {
    rmSync(place, { recursive: true })
  }
}

async function measure({ data, images, table, lm, place, dtype, rounds, python, json }) {
  const options = parseOptions({
    stage: 'pretrain',
    data,
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
    text: lm,
    batchSize,
    steps: 10_000,
    optimizer: { lr: 5e-4, weightDecay: 0.05 },
    precision: dtype,
    resize: 'crop',
    prepared: join(place, 'prepared'),
    validation: null,
    out: join(place, 'run'),
  })
  forgetPeakMemory()
  const ours = await TaskSteps.open(options)
  const rate = productRate({ dtype })
  const peers = []
  try {
    await ours.take(2)
    for (const [style, goal] of Object.entries(goals[dtype])) {
      const peer = python && startPeer(python, { images, table, lm, style, dtype })
      if (peer) peers.push(peer)
      await peer?.ask('step')
      const times = await takeSteps(rounds, ours, peer)
      const { figures } = ours
      const extra = {
        batch: batchSize,
        tokens: figures.texts.tokens,
        ofProductRate: figures.flops.total / (times.ours * 1e-3) / rate,
      }
      report({ name: `step, ${dtype}, against ${names[style]}`, unit: 'ms', ...times, goal, ...extra }, json)
      const memory = { ours: peakMemory(), peer: peer && (await peer.ask('peak')).value }
      if (style === 'tuned')
        report({ name: `peak memory, ${dtype}, against ${names[style]}`, unit: 'MiB', ...memory, goal: 0.7 }, json)
      peer?.close()
    }
    await reportProfile(`step, ${dtype}`, () => ours.take(1), json)
  } finally {
    for (const peer of peers) peer.close()
    await ours.close()
  }
}

function startPeer(python, { images, table, lm, style, dtype }) {
  return new Peer(python, './peer_real.py', [
    '--images',
    images,
    '--table',
    table,
    '--lm',
    lm,
    '--style',
    style,
    '--dtype',
    peerDtype(dtype),
  ])
}
