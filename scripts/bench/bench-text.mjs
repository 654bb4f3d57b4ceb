// Encoding text: forward and backward of a frozen language model with LoRA over a batch of CheXpert-style captions, by the
// prefix tree, against transformers and peft. Peer: peer_text.py.
//   npm run bench -- text [--lm DIR] [--rounds N] [--executions] [--json]
// Without --lm: GPT-2 of 512 x 6. With it: that LLaMA (SmolLM2-135M), also with products in bfloat16.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { encodeText, loadTextModel, lowerMatrices, planText, TextTokenizer } from '../../dist/models/text/index.js'
import { addAdapter } from '../../dist/peft/index.js'
import * as torch from '../../dist/torch/index.js'
import { findPython, median, Peer, report, takeTurns } from './rows.mjs'

const batchSize = 72
const here = (name) => fileURLToPath(new URL(name, import.meta.url))
const goals = {
  gpt2: { 'pad-64': 1 / 25, longest: 1 / 4, once: 1 / 2.5 },
  float32: { longest: 1 / 6, once: 1 / 4 },
  bfloat16: { longest: 1 / 8, once: 1 / 5 },
}
const names = { 'pad-64': 'padded to 64', longest: 'padded to the longest', once: 'equal captions once' }

function workload() {
  return torch.scope(() => {
    const file = torch.openSafetensors(here('./workload.safetensors'))
    const ids = file.tensor('input_ids').toArray()
    return file
      .tensor('length')
      .toArray()
      .map((length, row) => ids[row].slice(0, length))
  })
}

/** The same adapter as the peer's. */
function withLora(model, targetModules) {
  const adapted = addAdapter(model, { kind: 'lora', r: 8, alpha: 32, dropout: 0, targetModules })
  torch.noGrad(() =>
    torch.scope(() => {
      for (const [name, parameter] of adapted.namedParameters()) {
        const sign = name.includes('lora_B') ? 1 : name.includes('lora_A') ? -1 : 0
        if (sign !== 0)
          parameter.copy_(torch.linspace(-0.02 * sign, 0.02 * sign, parameter.numel()).view(parameter.shape))
      }
    }),
  )
  return adapted
}

/** Forward and backward over one batch. */
function makeStep(model, texts, padToken, autocast) {
  const learned = model.parameters().filter((parameter) => parameter.requiresGrad)
  return (number, execution = 'auto') => {
    const first = (number * batchSize) % (texts.length - batchSize + 1)
    const batch = texts.slice(first, first + batchSize)
    for (const parameter of learned) parameter.grad = null
    const started = performance.now()
    torch.scope(() => {
      const encode = () => encodeText(model, batch, { pool: 'first-pad', padToken, maximumLength: 64, execution })
      const features = autocast ? torch.autocast({ dtype: 'bfloat16' }, encode) : encode()
      features.float().square().mean().backward()
    })
    return performance.now() - started
  }
}

async function measure({ title, step, peer, wanted, rounds, json, extra }) {
  for (const [style, goal] of Object.entries(wanted)) {
    let number = 0
    step(0)
    if (peer !== null) await peer.ask(`time ${style} 0 1`)
    const times = await takeTurns(
      rounds,
      () => {
        number += 1
        return median(Array.from({ length: 3 }, () => step(number)))
      },
      peer === null ? null : async () => (await peer.ask(`time ${style} ${number} 1`)).value,
    )
    report({ name: `${title}, against ${names[style]}`, unit: 'ms', ...times, goal, ...extra }, json)
  }
}

/** How far ours is from the peer on one batch: a benchmark of something else would be worth nothing. */
async function checkEqual(title, model, texts, padToken, peer, json) {
  const learned = model.parameters().filter((parameter) => parameter.requiresGrad)
  const { features, gradients } = await peer.ask('features 0')
  const ours = torch.scope(() => {
    for (const parameter of learned) parameter.grad = null
    const found = encodeText(model, texts.slice(0, batchSize), { pool: 'first-pad', padToken, maximumLength: 64 })
    found.square().mean().backward()
    return {
      features: found.abs().sum().item(),
      gradients: learned.reduce((all, { grad }) => all + grad.abs().sum().item(), 0),
    }
  })
  const difference = Math.max(Math.abs(ours.features / features - 1), Math.abs(ours.gradients / gradients - 1))
  report({ name: `${title}, difference from the peer`, unit: 'relative', ours: difference, limit: 1e-4, goal: 1 }, json)
}

export async function run({ json, args }) {
  const option = (name) => (args.includes(name) ? args[args.indexOf(name) + 1] : undefined)
  const folder = option('--lm')
  const rounds = Number(option('--rounds') ?? (folder === undefined ? 9 : 5))
  const python = findPython(['torch', 'transformers', 'peft', 'safetensors'])
  if (python === null) console.error('no Python with torch, transformers and peft was found: rows have no peer')
  const place = mkdtempSync(join(tmpdir(), 'cleft-bench-'))
  const peers = []
  const startPeer = (...more) => {
    if (python === null) return null
    const peer = new Peer(python, './peer_text.py', [here('./workload.safetensors'), ...more])
    peers.push(peer)
    return peer
  }
  const counts = (model, texts, padToken) => {
    const plan = planText(model, texts.slice(0, batchSize), { pool: 'first-pad', padToken, maximumLength: 64 })
    return { execution: plan.execution, tokens: plan.rows * plan.length, batch: batchSize }
  }
  try {
    if (folder === undefined) {
      const texts = workload()
      const peer = startPeer('--save', place)
      if (peer === null) throw new Error('expected the Python peer, whose weights are the model; set CLEFT_PYTHON')
      await peer.ask('time longest 0 1')
      const model = withLora(await loadTextModel(place), ['c_attn'])
      await checkEqual('GPT-2 512 x 6', model, texts, 0, peer, json)
      const step = makeStep(model, texts, 0, false)
      await measure({
        title: 'GPT-2 512 x 6, float32',
        step,
        peer,
        wanted: goals.gpt2,
        rounds,
        json,
        extra: counts(model, texts, 0),
      })
      if (args.includes('--executions')) executions('GPT-2 512 x 6', step, rounds, json)
      return
    }
    const captions = readFileSync(here('./captions.txt'), 'utf8')
      .trimEnd()
      .split('\n')
      .slice(0, 8 * batchSize)
    const tokenizer = TextTokenizer.open(folder)
    const texts = await tokenizer.encode(captions)
    for (const dtype of ['float32', 'bfloat16']) {
      const peer = startPeer('--lm', folder, '--captions', here('./captions.txt'), '--dtype', dtype)
      const plain = await loadTextModel(folder, { dtype: 'float32' })
      if (dtype === 'bfloat16') lowerMatrices(plain, 'bfloat16')
      const model = withLora(plain)
      const title = `SmolLM2, ${dtype}`
      if (dtype === 'float32' && peer !== null) await checkEqual(title, model, texts, tokenizer.padToken, peer, json)
      const step = makeStep(model, texts, tokenizer.padToken, dtype === 'bfloat16')
      await measure({
        title,
        step,
        peer,
        wanted: goals[dtype],
        rounds,
        json,
        extra: counts(model, texts, tokenizer.padToken),
      })
      if (args.includes('--executions')) executions(title, step, rounds, json)
      peer?.close()
      model.dispose()
    }
  } finally {
    for (const peer of peers) peer.close()
    rmSync(place, { recursive: true })
  }
}

/** Our executions against each other. */
function executions(title, step, rounds, json) {
  for (const execution of ['padded', 'packed', 'tree']) {
    step(0, execution)
    const ours = median(Array.from({ length: rounds }, (_, number) => step(number + 1, execution)))
    report({ name: `${title}, ours ${execution}`, unit: 'ms', ours, goal: null }, json)
  }
}
