// Makes the small language model of the package, src/models/presets/cleft-report-lm: draws report sentences from the grammar,
// learns the tokenizer, and trains a GPT-2 to foretell the next token. The same seed and
// number of threads give the same files on one machine; about four minutes on one core.
//   npm run build && OMP_NUM_THREADS=1 node scripts/language/train.mjs [--steps N] [--seed N] [--out DIR]
import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import * as captions from '../../dist/data/captions/index.js'
import { Random } from '../../dist/data/random.js'
import { buildModel, fromPretrained, TextTokenizer, writeJson } from '../../dist/models/index.js'
import * as torch from '../../dist/torch/index.js'
import { drawRecord } from './grammar.mjs'
import { continuation, lossOf, tokensOf } from './next-token.mjs'
import { END, learnTokenizer } from './tokenizer.mjs'

const { values } = parseArgs({
  options: {
    steps: { type: 'string', default: '2400' },
    seed: { type: 'string', default: '0' },
    out: {
      type: 'string',
      default: fileURLToPath(new URL('../../src/models/presets/cleft-report-lm', import.meta.url)),
    },
  },
})
const [steps, seed, folder] = [Number(values.steps), Number(values.seed), values.out]
for (const [name, value] of Object.entries({ steps, seed })) {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(`--${name}: expected a whole number from 0 on, but received '${values[name]}'`)
  }
}

const VOCABULARY = 1024
const TOKENS_A_STEP = 640
const config = {
  architectures: ['GPT2LMHeadModel'],
  model_type: 'gpt2',
  vocab_size: VOCABULARY,
  n_positions: 256,
  n_embd: 128,
  n_layer: 4,
  n_head: 4,
  activation_function: 'gelu_new',
  layer_norm_epsilon: 1e-5,
  embd_pdrop: 0.1,
  attn_pdrop: 0.1,
  resid_pdrop: 0.1,
  bos_token_id: 0,
  eos_token_id: 0,
  tie_word_embeddings: true,
  dtype: 'bfloat16',
}

const record = (split, index) => drawRecord(new Random(seed, 'language', split, index), captions)
const records = (split, count) => Array.from({ length: count }, (_, index) => record(split, index))

async function writeTokenizer() {
  mkdirSync(folder, { recursive: true })
  const texts = records('tokenizer', 20_000).flatMap((each) => each.texts)
  writeFileSync(join(folder, 'tokenizer.json'), `${learnTokenizer(texts, VOCABULARY)}\n`)
  writeJson(join(folder, 'config.json'), config)
  writeJson(join(folder, 'tokenizer_config.json'), {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: END,
    eos_token: END,
    pad_token: END,
    unk_token: END,
    model_max_length: config.n_positions,
  })
  return TextTokenizer.open(folder)
}

/** Records until a step has enough tokens. */
async function* batches(tokenizer) {
  const ahead = 512
  let pending = []
  for (let index = 0; ; index += ahead) {
    const drawn = Array.from({ length: ahead }, (_, each) => record('train', index + each).texts)
    for (const ids of await tokensOf(drawn, tokenizer, config.n_positions)) {
      pending.push(ids)
      if (pending.reduce((sum, each) => sum + each.length, 0) >= TOKENS_A_STEP) {
        yield pending
        pending = []
      }
    }
  }
}

/** As GPT-2 begins (Radford et al. 2019): the head is the word embeddings, which must be small, and each layer adds a little. */
function initialise(model) {
  const { normal_ } = torch.nn.init
  normal_(model.wte.weight, 0, 0.02)
  normal_(model.wpe.weight, 0, 0.01)
  for (const [name, weight] of model.namedParameters()) {
    if (name.endsWith('c_proj.weight')) normal_(weight, 0, 0.02 / Math.sqrt(2 * config.n_layer))
  }
}

async function train(tokenizer) {
  torch.manualSeed(seed)
  const model = await buildModel(config)
  initialise(model)
  // without dropout: no record comes twice
  model.train()
  const groups = torch.optim.decayGroups(model.parameters(), { weightDecay: 0.1 })
  const optimizer = new torch.optim.AdamW(groups, { lr: 4e-3, betas: [0.9, 0.99] })
  const schedule = new torch.optim.CosineWithWarmup(optimizer, {
    warmupSteps: Math.min(100, steps),
    totalSteps: steps,
    lrMin: 1e-5,
  })
  const started = performance.now()
  let [step, seen] = [0, 0]
  for await (const batch of batches(tokenizer)) {
    if (step === steps) break
    torch.scope(() => {
      // the state at an end is to be a text's feature, whether it sees itself or not
      const loss = lossOf(torch, model, batch, { isBlind: (index) => index % 2 === 0, end: tokenizer.padToken })
      optimizer.zeroGrad()
      loss.backward()
      torch.optim.clipGradNorm_(model.parameters(), 1)
      optimizer.step()
      schedule.step()
      step += 1
      seen += batch.reduce((sum, each) => sum + each.length, 0)
      if (step % 200 === 0 || step === steps) {
        const seconds = (performance.now() - started) / 1000
        const rate = (seen / seconds).toFixed(0)
        console.error(`step ${step}/${steps}, perplexity ${Math.exp(loss.item()).toFixed(3)}, ${rate} tokens/s`)
      }
    })
  }
  const state = model.stateDict()
  torch.scope(() => {
    const named = Object.fromEntries(
      [...state].map(([name, each]) => [`transformer.${name}`, each.detach().bfloat16()]),
    )
    torch.saveSafetensors(named, join(folder, 'model.safetensors'), { metadata: { format: 'pt' } })
  })
}

/** How surprising the first token of a record is, in nats, by how often each comes. */
function firstEntropy(ids) {
  const counts = new Map()
  for (const [first] of ids) counts.set(first, (counts.get(first) ?? 0) + 1)
  return [...counts.values()].reduce((sum, count) => sum - (count / ids.length) * Math.log(count / ids.length), 0)
}

/** What the saved model makes of records that it has not seen, and how little it could make of them at best. */
async function report(tokenizer) {
  const model = await fromPretrained(folder, { frozen: true })
  const heldOut = records('held out', 2000)
  const ids = await tokensOf(
    heldOut.map(({ texts }) => texts),
    tokenizer,
    config.n_positions,
  )
  const tokens = ids.reduce((sum, each) => sum + each.length - 1, 0)
  let loss = 0
  for (let first = 0; first < ids.length; first += 50) {
    const some = ids.slice(first, first + 50)
    const count = some.reduce((sum, each) => sum + each.length - 1, 0)
    loss += count * torch.noGrad(() => torch.scope(() => lossOf(torch, model, some).item()))
  }
  // the first token of a record is given, the others are not
  const nats = heldOut.reduce((sum, each) => sum + each.nats, 0) - ids.length * firstEntropy(ids)
  console.log(`held-out perplexity ${Math.exp(loss / tokens).toFixed(3)} a token`)
  console.log(`the grammar's choices come to ${Math.exp(nats / tokens).toFixed(3)}, which no model can be much below`)
  const bytes = readdirSync(folder).reduce((sum, name) => sum + statSync(join(folder, name)).size, 0)
  console.log(`${(bytes / 2 ** 20).toFixed(2)} MiB in ${folder}`)
  for (const start of [
    'this is a chest x ray of a patient with',
    'there is',
    'the heart',
    'findings',
    'this is a breast',
  ]) {
    console.log(`  ${await continuation(torch, model, tokenizer, start, new Random(seed, 'continuation', start))}`)
  }
}

const tokenizer = await writeTokenizer()
await train(tokenizer)
await report(tokenizer)
