// Whether adapters that we save load in Python's peft with equal outputs, and come back.
//
//   npm run build && node scripts/check-peft.mjs [PYTHON]
//
// PYTHON has torch, transformers and peft (default: python3). Prints the largest difference of the last hidden state for
// each kind of adapter, in Python and after Python has saved the adapter again. Exit status 1 where one is above 2e-5.
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const dist = pathToFileURL(`${process.env.CLEFT_DIST ?? join(root, 'dist')}/`)
const torch = await import(new URL('torch/index.js', dist))
const { addAdapter, loadAdapter, RankAllocator, saveAdapter } = await import(new URL('peft/index.js', dist))
const { loadTextModel } = await import(new URL('models/text/load.js', dist))

const tolerance = 2e-5

/** The model of a reference case; `auto` is transformers' class for it. */
const models = {
  gpt2: { folder: 'gpt2', auto: 'AutoModelForCausalLM' },
  'gpt2 without head': { folder: 'gpt2', auto: 'AutoModel', headPrefix: '' },
  llama: { folder: 'llama', auto: 'AutoModelForCausalLM' },
  bert: { folder: 'bert', auto: 'AutoModel' },
}
const onLayers = {
  lora: { kind: 'lora', r: 8, alpha: 32, dropout: 0.1 },
  'lora all-linear rslora': { kind: 'lora', r: 4, alpha: 6, rslora: true, targetModules: 'all-linear' },
  dora: { kind: 'lora', r: 4, alpha: 6, dora: true },
  ia3: { kind: 'ia3' },
  adalora: { kind: 'adalora', initR: 4, targetR: 2, totalStep: 10 },
}
const onText = {
  prefix: { kind: 'prefix', numVirtualTokens: 5 },
  'prefix with projection': { kind: 'prefix', numVirtualTokens: 5, prefixProjection: true, encoderHiddenSize: 12 },
  prompt: { kind: 'prompt', numVirtualTokens: 6 },
  'prompt from text': {
    kind: 'prompt',
    numVirtualTokens: 6,
    init: 'text',
    initTokens: [3, 9],
    initText: 'a b',
    tokenizer: 'none',
  },
}
const onGpt2 = {
  'lora patterns': {
    kind: 'lora',
    targetModules: ['c_attn', 'mlp.c_proj'],
    rankPattern: { 'h.1.attn.c_attn': 3, c_proj: 5 },
    alphaPattern: { 'h\\.0.*c_attn': 7 },
  },
  'lora layers': { kind: 'lora', targetModules: ['c_attn'], layersToTransform: [1] },
  'lora exclusion': { kind: 'lora', targetModules: ['c_proj'], excludeModules: ['mlp.c_proj'] },
  'lora expression': { kind: 'lora', targetModules: 'h\\.\\d+\\.attn\\.c_.*' },
  'ia3 expression': { kind: 'ia3', targetModules: 'h\\.1\\.(attn|mlp)\\.c_proj', feedforwardModules: '.*mlp\\.c_proj' },
  'adalora cut': { kind: 'adalora', initR: 4, targetR: 1, totalStep: 6, targetModules: ['c_attn', 'c_fc'] },
}

const inputIds = [
  [5, 9, 2, 7, 1, 4],
  [3, 3, 8, 6, 0, 0],
]
const mask = [
  [1, 1, 1, 1, 1, 1],
  [1, 1, 1, 1, 0, 0],
]

function run(adapted) {
  return torch.noGrad(() => {
    const attentionMask = torch.tensor(mask, { dtype: 'int64' })
    const { lastHidden } = adapted.forward({ inputIds, attentionMask })
    const extra = lastHidden.shape[1] - mask[0].length
    const seen = torch.cat([torch.ones([2, extra], { dtype: 'int64' }), attentionMask], 1)
    return lastHidden.mul(seen.unsqueeze(2))
  })
}

async function make(folder, model, config, format) {
  const base = join(root, 'test', 'reference', model.folder, 'model')
  const adapted = addAdapter(await loadTextModel(base), config)
  torch.manualSeed(7)
  torch.noGrad(() => {
    for (const each of adapted.adapterParameters().values()) each.add_(torch.randnLike(each), { alpha: 0.1 })
  })
  adapted.train()
  if (config.kind === 'adalora') {
    const allocator = new RankAllocator(adapted)
    for (let step = 0; step <= config.totalStep; step += 1) {
      torch.scope(() => adapted.forward({ inputIds }).lastHidden.square().sum().backward())
      allocator.afterBackward(step)
    }
  }
  adapted.eval()
  saveAdapter(adapted, join(folder, 'adapter'), { format, headPrefix: model.headPrefix })
  const expected = run(adapted)
  torch.saveSafetensors(
    {
      hidden: expected,
      input_ids: torch.tensor(inputIds, { dtype: 'int64' }),
      attention_mask: torch.tensor(mask, { dtype: 'int64' }),
    },
    join(folder, 'io.safetensors'),
  )
  writeFileSync(join(folder, 'case.json'), JSON.stringify({ model: base, auto: model.auto }))
  return { base, expected }
}

const folder = mkdtempSync(join(tmpdir(), 'check-peft-'))
try {
  const cases = []
  for (const [modelName, model] of Object.entries(models)) {
    const configs = {
      ...onLayers,
      ...(model.folder === 'bert' ? {} : onText),
      ...(model.folder === 'gpt2' ? onGpt2 : {}),
    }
    for (const [name, config] of Object.entries(configs)) {
      // peft has prefixes and prompts for models with a task
      if (model.headPrefix === '' && name in onText) continue
      const inside = join(folder, String(cases.length))
      mkdirSync(inside)
      const made = await make(inside, model, config, cases.length % 4 === 3 ? 'bin' : 'safetensors')
      cases.push({ name: `${modelName}, ${name}`, inside, ...made })
    }
  }
  const script = join(root, 'scripts', 'check_peft.py')
  const { status } = spawnSync(process.argv[2] ?? 'python3', [script, folder], { stdio: 'inherit' })
  if (status !== 0) process.exit(status ?? 1)
  let failed = 0
  for (const { name, inside, base, expected } of cases) {
    const { error, difference } = JSON.parse(readFileSync(join(inside, 'result.json'), 'utf8'))
    let back = Number.NaN
    if (error === undefined) {
      const again = await loadAdapter(await loadTextModel(base), join(inside, 'again'))
      back = run(again).sub(expected).abs().max().item()
    }
    const passes = error === undefined && difference <= tolerance && back <= tolerance
    if (!passes) failed += 1
    const numbers = error ?? `in Python ${difference.toExponential(1)}, back again ${back.toExponential(1)}`
    console.log(`${passes ? 'pass' : 'FAIL'}  ${name}: ${numbers}`)
  }
  console.log(failed === 0 ? `all ${cases.length} pass` : `${failed} of ${cases.length} fail`)
  process.exitCode = failed === 0 ? 0 : 1
} finally {
  rmSync(folder, { recursive: true })
}
