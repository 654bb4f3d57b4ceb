import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  type AdapterConfig,
  addAdapter,
  loadAdapter,
  loadAdapterState,
  RankAllocator,
  saveAdapter,
  type TextEncoder,
} from '../../src/peft/index.js'
import * as torch from '../../src/torch/index.js'
import { difference, loadReferenceModel, referencePath } from './helpers.js'

type Tensor = torch.Tensor

const root = mkdtempSync(join(tmpdir(), 'cleft-peft-'))
afterAll(() => rmSync(root, { recursive: true }))

let folders = 0
function newFolder(): string {
  folders += 1
  return join(root, String(folders))
}

/** A copy of a reference adapter, to be damaged. */
function copyOf(name: string): string {
  const folder = newFolder()
  cpSync(`${referencePath(name)}/adapter`, folder, { recursive: true })
  return folder
}

type Json = Record<string, unknown>

function readConfig(folder: string): Json {
  return JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8')) as Json
}

function changeConfig(folder: string, changes: Json): string {
  const json = Object.entries({ ...readConfig(folder), ...changes }).filter(([, value]) => value !== undefined)
  writeFileSync(join(folder, 'adapter_config.json'), JSON.stringify(Object.fromEntries(json)))
  return folder
}

function readTensors(folder: string): Map<string, Tensor> {
  using file = torch.openSafetensors(join(folder, 'adapter_model.safetensors'))
  return new Map(file.names.map((name) => [name, file.tensor(name).clone()]))
}

function changeTensors(
  folder: string,
  change: (name: string, tensor: Tensor) => readonly [string, Tensor] | null,
): string {
  const changed = [...readTensors(folder)].map(([name, tensor]) => change(name, tensor)).filter((each) => each !== null)
  torch.saveSafetensors(changed, join(folder, 'adapter_model.safetensors'))
  return folder
}

const ids = [
  [5, 9, 2, 7, 1],
  [3, 3, 8, 0, 0],
]
const run = (model: TextEncoder): Tensor => torch.noGrad(() => model.forward({ inputIds: ids }).lastHidden)

const quiet = { warn: () => {} }

const cases = [
  'gpt2-lora',
  'gpt2-lora-all',
  'gpt2-dora',
  'gpt2-ia3',
  'gpt2-prefix',
  'gpt2-prompt',
  'gpt2-adalora',
  'llama-lora',
  'llama-ia3',
]

describe.each(cases)('%s', (name) => {
  it.each(['safetensors', 'bin'] as const)('is written as it was read: %s', async (format) => {
    const folder = newFolder()
    const first = await loadAdapter(await loadReferenceModel(name), `${referencePath(name)}/adapter`)
    saveAdapter(first, folder, { format })
    expect(readdirSync(folder).sort()).toEqual(['adapter_config.json', `adapter_model.${format}`])
    const second = await loadAdapter(await loadReferenceModel(name), folder)
    expect(difference(run(first), run(second))).toBe(0)
    // what both files say is the same
    const [theirs, ours] = [readConfig(`${referencePath(name)}/adapter`), readConfig(folder)]
    const sorted = (value: unknown) => (Array.isArray(value) ? [...value].sort() : value)
    for (const [key, value] of Object.entries(ours))
      if (key in theirs) expect(sorted(value), key).toEqual(sorted(theirs[key]))
    if (format === 'bin') return
    const [before, after] = [readTensors(`${referencePath(name)}/adapter`), readTensors(folder)]
    expect([...after.keys()].sort()).toEqual([...before.keys()].sort())
    for (const [key, tensor] of before) expect(difference(tensor, after.get(key)!)).toBe(0)
  })

  it('is read under the names that others write', async () => {
    const expected = run(await loadAdapter(await loadReferenceModel(name), `${referencePath(name)}/adapter`))
    const renames: ((key: string) => string)[] = [
      // as in memory
      (key) => (key.endsWith('.weight') ? key.replace(/\.weight$/, '.default.weight') : `${key}.default`),
      // peft with base_layer, DoRA as a module
      (key) =>
        key
          .replace(/\.(lora_[AB]|ia3_l)/, '.base_layer.$1')
          .replace(/magnitude_vector$/, 'magnitude_vector.default.weight'),
      // without a head
      (key) => key.replace(/model\.(transformer|model)\./, 'model.'),
      (key) => key.replace(/^base_model\.model\.(transformer\.|model\.)/, ''),
      // the prompt stage's
      (key) => `base_model.${key}`,
    ]
    for (const rename of name === 'gpt2-prefix' || name === 'gpt2-prompt' ? [(key: string) => key] : renames) {
      const folder = changeTensors(copyOf(name), (key, tensor) => [rename(key), tensor])
      expect(difference(run(await loadAdapter(await loadReferenceModel(name), folder)), expected)).toBe(0)
    }
  })
})

describe('saveAdapter', () => {
  const configs: Record<string, AdapterConfig> = {
    patterns: {
      kind: 'lora',
      targetModules: ['c_attn', 'mlp.c_proj'],
      rankPattern: { 'h.1.attn.c_attn': 3, c_proj: 5 },
      alphaPattern: { 'h\\.0.*c_attn': 7 },
    },
    'all-linear': { kind: 'lora', targetModules: 'all-linear', r: 2 },
    layers: { kind: 'lora', targetModules: ['c_attn'], layersToTransform: [1] },
    exclusion: { kind: 'lora', targetModules: ['c_proj'], excludeModules: ['mlp.c_proj'] },
    'expression without head': { kind: 'lora', targetModules: 'h\\.\\d+\\.attn\\.c_.*' },
    'expression with head': {
      kind: 'ia3',
      targetModules: 'transformer\\.h\\.1\\.(attn|mlp)\\.c_proj',
      feedforwardModules: '.*mlp\\.c_proj',
    },
    'one module': { kind: 'ia3', targetModules: ['h.0.attn.c_attn'], feedforwardModules: [] },
    projection: { kind: 'prefix', numVirtualTokens: 4, prefixProjection: true, encoderHiddenSize: 9 },
  }
  it.each(Object.entries(configs))('round trip: %s', async (_, config) => {
    const model = await loadReferenceModel('gpt2-lora')
    const adapted = addAdapter(model, config)
    torch.noGrad(() => {
      for (const each of adapted.adapterParameters().values()) each.add_(torch.randnLike(each), { alpha: 0.1 })
    })
    for (const headPrefix of ['transformer.', '']) {
      const folder = newFolder()
      saveAdapter(adapted, folder, { headPrefix })
      const again = await loadAdapter(await loadReferenceModel('gpt2-lora'), folder)
      expect(again.adapter().paths).toEqual(adapted.adapter().paths)
      expect(difference(run(again), run(adapted))).toBeLessThan(1e-6)
    }
  })

  it('takes the modules, ranks and scales that patterns say', async () => {
    const adapted = addAdapter(await loadReferenceModel('gpt2-lora'), configs.patterns!)
    expect(adapted.adapter().paths).toEqual(['h.0.attn.c_attn', 'h.0.mlp.c_proj', 'h.1.attn.c_attn', 'h.1.mlp.c_proj'])
    const ranks = [...adapted.adapterParameters()]
      .filter(([name]) => name.includes('lora_A'))
      .map(([, each]) => each.shape[0])
    expect(ranks).toEqual([8, 5, 3, 5])
    const expression = addAdapter(await loadReferenceModel('gpt2-lora'), configs['expression without head']!)
    expect(expression.adapter().paths).toHaveLength(4)
    const folder = newFolder()
    saveAdapter(expression, folder)
    // peft's names have the head: the expression would match none of them
    expect(readConfig(folder).target_modules).toEqual(['attn.c_attn', 'attn.c_proj'])
    const projections = addAdapter(await loadReferenceModel('gpt2-lora'), { kind: 'lora', targetModules: ['c_proj'] })
    expect(projections.adapter().paths).toEqual([
      'h.0.attn.c_proj',
      'h.0.mlp.c_proj',
      'h.1.attn.c_proj',
      'h.1.mlp.c_proj',
    ])
  })

  it("cuts AdaLoRA's tensors to the triplets that are kept, none perhaps", async () => {
    const model = await loadReferenceModel('gpt2-lora')
    const adapted = addAdapter(model, {
      kind: 'adalora',
      initR: 4,
      targetR: 1,
      totalStep: 4,
      targetModules: ['c_attn', 'c_fc'],
    })
    const allocator = new RankAllocator(adapted)
    torch.manualSeed(4)
    torch.noGrad(() => {
      for (const [name, each] of adapted.adapterParameters())
        each.copy_(torch.randnLike(each).mul(name.startsWith('h.0') ? 1e-3 : 0.1))
    })
    for (let step = 0; step < 5; step += 1) {
      torch.scope(() => adapted.forward({ inputIds: ids }).lastHidden.square().sum().backward())
      allocator.afterBackward(step)
    }
    const kept = Object.values(allocator.rankPattern()!).map((each) => each.filter(Boolean).length)
    expect(kept).toContain(0)
    expect(kept.reduce((sum, each) => sum + each)).toBe(4)
    const folder = newFolder()
    saveAdapter(adapted, folder)
    const ranks = [...readTensors(folder)]
      .filter(([name]) => name.endsWith('lora_A'))
      .map(([, tensor]) => tensor.shape[0])
    expect(ranks.sort()).toEqual([...kept].sort())
    const again = await loadAdapter(await loadReferenceModel('gpt2-lora'), folder)
    expect(difference(run(again), run(adapted))).toBeLessThan(1e-6)
    const twice = newFolder()
    saveAdapter(again, twice)
    expect(difference(run(await loadAdapter(await loadReferenceModel('gpt2-lora'), twice)), run(adapted))).toBeLessThan(
      1e-6,
    )
    expect(() => new RankAllocator(again)).toThrow(/a saved adapter's are cut/)
  })
})

describe('loadAdapter', () => {
  const load = async (folder: string, model = 'gpt2-lora', options = {}) =>
    loadAdapter(await loadReferenceModel(model), folder, options)

  it('warns of options that it does not know, and of nothing else', async () => {
    const lines: string[] = []
    const warn = (line: string) => lines.push(line)
    for (const name of cases) await load(`${referencePath(name)}/adapter`, name, { warn })
    expect(lines).toEqual([])
    await load(changeConfig(copyOf('gpt2-lora'), { brand_new: 3, other: null }), 'gpt2-lora', { warn })
    expect(lines[0]).toMatch(/ignores options that are not known: brand_new, other/)
  })

  it.each([
    [{ bias: 'all' }, /without bias, which is not supported, but it says "all"/],
    [{ modules_to_save: ['wte'] }, /without modules_to_save/],
    [{ use_qalora: true }, /without use_qalora/],
    [{ lora_bias: true }, /without lora_bias/],
    [{ init_lora_weights: 'pissa_niter_4' }, /without init_lora_weights/],
    [{ layer_replication: [[0, 1]] }, /without layer_replication/],
    [{ peft_type: 'LOHA' }, /expected peft_type LORA, .*, but received "LOHA"/],
    [{ peft_type: '__proto__' }, /expected peft_type/],
    [{ r: 'eight' }, /expected r to be a number, but received "eight"/],
    [{ r: -1 }, /expected r to be a whole number from 1/],
    [{ target_modules: 7 }, /expected target_modules to be names of modules/],
    [{ target_modules: [] }, /expected target_modules, but received \[\]/],
    [{ target_modules: '(' }, /a regular expression that JavaScript knows too/],
    [{ rank_pattern: { c_attn: 'x' } }, /expected rank_pattern to be numbers by pattern/],
    [{ lora_dropout: 2 }, /expected dropout from 0 to below 1/],
  ])('refuses %j', async (changes, message) => {
    await expect(load(changeConfig(copyOf('gpt2-lora'), changes), 'gpt2-lora', quiet)).rejects.toThrow(message)
  })

  it("refuses another model's adapter with the difference, and changes nothing", async () => {
    const model = await loadReferenceModel('gpt2-lora')
    const before = run(model)
    const refused = async (folder: string, message: RegExp) => {
      await expect(loadAdapter(model, folder, quiet)).rejects.toThrow(message)
      expect(difference(run(model), before)).toBe(0)
      expect(
        model
          .modules()
          .some((each) => each.constructor.name.endsWith('Layer') && each.constructor.name !== 'ModuleDict'),
      ).toBe(false)
    }
    await refused(
      `${referencePath('llama-lora')}/adapter`,
      /tensors for 4 modules that the model has not: model.layers.0.self_attn.q_proj, /,
    )
    const short = changeTensors(copyOf('gpt2-lora'), (name, tensor) => (name.includes('h.1') ? null : [name, tensor]))
    await refused(short, /2 tensors are missing: h.1.attn.c_attn.lora_A.weight, h.1.attn.c_attn.lora_B.weight/)
    const wide = changeTensors(copyOf('gpt2-lora'), (name, tensor) => [
      name,
      name.includes('lora_A') ? torch.cat([tensor, tensor], 1) : tensor,
    ])
    await refused(wide, /h.0.attn.c_attn.lora_A.weight has shape \[8, 96\] instead of \[8, 48\]/)
    const deep = changeTensors(copyOf('gpt2-lora'), (name, tensor) => [name.replace('h.1', 'h.7'), tensor])
    await refused(deep, /has tensors for 1 modules that the model has not: transformer.h.7.attn.c_attn/)
    const more = changeTensors(copyOf('gpt2-lora-all'), (name, tensor) => [name, tensor])
    await refused(
      changeConfig(more, { target_modules: ['c_attn'] }),
      /12 tensors match no module that its config names: .*c_proj.lora_A.weight/,
    )
    const strange = changeTensors(copyOf('gpt2-lora'), (name, tensor) => [name.replace('lora_A', 'wte'), tensor])
    await refused(strange, /these tensors are not of a lora adapter: .*wte.weight/)
    await refused(changeConfig(copyOf('gpt2-lora'), { r: 4 }), /lora_A.weight has shape \[8, 48\] instead of \[4, 48\]/)
    await refused(
      changeConfig(copyOf('gpt2-lora'), { target_modules: ['q_proj'] }),
      /its linear layers are attn.c_attn, attn.c_proj, mlp.c_fc, mlp.c_proj/,
    )
    await refused(changeConfig(copyOf('gpt2-prefix'), { num_layers: 3 }), /num_layers is 3 where the model has 2/)
    await refused(
      changeConfig(copyOf('gpt2-prefix'), { num_virtual_tokens: 6 }),
      /prompt_embeddings has shape \[5, 192\] instead of \[6, 192\]/,
    )
    await refused(changeConfig(copyOf('gpt2-prompt'), { token_dim: 64 }), /token_dim is 64 where the model has 48/)
    await expect(
      loadAdapter(await loadReferenceModel('llama-lora'), `${referencePath('gpt2-prefix')}/adapter`),
    ).rejects.toThrow(/num_attention_heads is 4 where the model has 2; token_dim is 48/)
  })

  it('takes tensors of another checkpoint', async () => {
    const expected = run(await load(`${referencePath('gpt2-lora')}/adapter`))
    const inside = (key: string) => `text_encoder_q.model.${key.replace('.weight', '.default.weight')}`
    const state = new Map(
      [...readTensors(`${referencePath('gpt2-lora')}/adapter`)].map(([key, each]) => [inside(key), each]),
    )
    const config = { kind: 'lora', r: 8, alpha: 32, dropout: 0.1 } as const
    const adapted = loadAdapterState(await loadReferenceModel('gpt2-lora'), config, state)
    expect(difference(run(adapted), expected)).toBe(0)
    const published = new Map([['prompt_encoder.default.embedding.weight', torch.ones([3, 192])]])
    const prefix = loadAdapterState(
      await loadReferenceModel('gpt2-lora'),
      { kind: 'prefix', numVirtualTokens: 3 },
      published,
    )
    expect(prefix.virtualTokens()!.count).toBe(3)
  })

  it('refuses damaged files and folders', async () => {
    await expect(load(newFolder())).rejects.toThrow(/expected a file .*adapter_config.json, but there is none/)
    const broken = copyOf('gpt2-lora')
    writeFileSync(join(broken, 'adapter_config.json'), '{"peft_type": ')
    await expect(load(broken)).rejects.toThrow(/expected JSON in/)
    writeFileSync(join(broken, 'adapter_config.json'), '[]')
    await expect(load(broken)).rejects.toThrow(/expected an object in .*, but received an array/)
    const empty = copyOf('gpt2-lora')
    rmSync(join(empty, 'adapter_model.safetensors'))
    await expect(load(empty)).rejects.toThrow(
      /adapter_model.safetensors or adapter_model.bin in .*, but there is neither/,
    )
    writeFileSync(join(empty, 'adapter_model.safetensors'), 'rubbish that is no file of tensors')
    await expect(load(empty)).rejects.toThrow(/safetensors/)
    const twice = await load(`${referencePath('gpt2-lora')}/adapter`)
    await expect(loadAdapter(twice, `${referencePath('gpt2-lora')}/adapter`)).rejects.toThrow(
      /there is an adapter 'default'/,
    )
    expect(() => addAdapter(twice, { kind: 'lora' }, 'a.b')).toThrow(/expected a name of letters/)
    expect(() => addAdapter(twice, { kind: 'lora' }, 'forward')).toThrow(/that is no method's/)
  })

  it('leaves no tensor behind', async () => {
    const model = await loadReferenceModel('gpt2-lora')
    const cycle = async () => (await loadAdapter(model, `${referencePath('gpt2-lora')}/adapter`)).unload()
    await cycle()
    const { live } = torch.memory.counters()
    await cycle()
    await expect(loadAdapter(model, `${referencePath('llama-lora')}/adapter`)).rejects.toThrow()
    expect(torch.memory.counters().live).toBe(live)
  })
})
