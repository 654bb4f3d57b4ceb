import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { convert } from '../../src/clip/convert.js'
import { fingerprint, loadModel } from '../../src/clip/model-files.js'
import { loadPublished } from '../../src/clip/published.js'
import type { TextTower } from '../../src/clip/text-tower.js'
import { loadTextModel, openWeights } from '../../src/models/index.js'
import { AdaptedModel, type AdapterConfig, addAdapter, loadAdapter } from '../../src/peft/index.js'
import * as torch from '../../src/torch/index.js'
import { expectClose, numbersOf, referenceCase } from '../models/reference.js'

const reference = referenceCase('cleft-step')
const official = join(reference.folder, 'official.ckpt')
const towers = { image: join(reference.folder, 'image'), text: join(reference.folder, 'text') }

const scratch = mkdtempSync(join(tmpdir(), 'cleft-published-'))
afterAll(() => rmSync(scratch, { recursive: true, force: true }))
let count = 0
const place = (ending = '') => {
  count += 1
  return join(scratch, `${count}${ending}`)
}

const texts = [[5, 6, 7, 8], [5, 6], [9], [5, 6, 7, 11]]
const pixels = () => reference.tensor('in.pixel_values').narrow(0, 0, 4)

function features(model: TextTower): { image: number[]; text: number[] } {
  return torch.scope(() =>
    torch.noGrad(() => ({
      image: numbersOf(model.encodeImage(pixels())),
      text: numbersOf(model.encodeText(texts)),
    })),
  )
}

/** The published file with other tensors of the text tower. */
async function variant(
  change: (name: string, tensor: torch.Tensor) => [string, torch.Tensor][],
  add: Record<string, torch.Tensor> = {},
) {
  const source = await openWeights(official)
  const path = place('.ckpt')
  torch.scope(() => {
    const state = new Map<string, torch.Tensor>(Object.entries(add))
    for (const name of source.names) {
      const pairs = name.startsWith('text_encoder_q.model.')
        ? change(name, source.tensor(name))
        : [[name, source.tensor(name)] as const]
      for (const [key, tensor] of pairs) state.set(key, tensor)
    }
    torch.save(new Map([['state_dict', state]]), path)
  })
  source.close?.()
  return path
}

const isLora = (name: string) => name.includes('.lora_')
const text = 'text_encoder_q.model.'

/** The text tower by hand: the language model and an adapter with these values. */
async function byHand(
  config: AdapterConfig | null,
  values: Record<string, torch.Tensor>,
  lora = false,
): Promise<number[]> {
  const model = await loadTextModel(towers.text)
  const loaded = lora ? await loadAdapter(model, join(reference.folder, 'adapter')) : null
  return torch.scope(() =>
    torch.noGrad(() => {
      const { model: published } = loadedTowers
      const adapted = config === null ? (loaded ?? model) : addAdapter(model, config, 'extra')
      if (adapted instanceof AdaptedModel && config !== null) {
        for (const [name, parameter] of adapted.adapterParameters('extra')) parameter.copy_(values[name]!)
        adapted.setAdapter(lora ? ['default', 'extra'] : ['extra'])
        adapted.eval()
      }
      const { encoding } = published
      const own = new (published.constructor as typeof TextTower)({
        image: published.image,
        text: adapted,
        embeddingWidth: 32,
      })
      own.text_projection.loadStateDict(published.text_projection.stateDict())
      return numbersOf(own.eval().encodeText(texts.map((ids) => ids.slice(0, encoding.maximumLength))))
    }),
  )
}

const loadedTowers = await loadPublished(official, towers)

describe('a checkpoint of the published code', () => {
  it('reproduces its training step', async () => {
    const { model } = await loadPublished(official, { ...towers, trainable: true })
    const mask = reference.tensor('in.attention_mask')
    model.encoding.maximumLength = mask.size(1)
    const lengths = numbersOf(mask.sum(1))
    const ids = numbersOf(reference.tensor('in.input_ids'))
    const sequences = lengths.map((length, row) => ids.slice(row * mask.size(1), row * mask.size(1) + length))
    const found = model.forward(reference.tensor('in.pixel_values'), sequences)
    expectClose(found.loss, reference.tensor('out.loss'), reference, 'loss')
    expectClose(found.scores, reference.tensor('out.scores'), reference, 'scores')
    found.loss.backward()
    const lora = [...model.namedParameters()].filter(([name]) => name.includes('lora_B'))
    expect(lora.length).toBeGreaterThan(0)
    for (const [, parameter] of lora) expect(parameter.grad!.abs().max().item()).toBeGreaterThan(0)
    const frozen = [...model.namedParameters()].filter(([name]) => name.startsWith('text.') && !name.includes('lora_'))
    expect(frozen.every(([, parameter]) => !parameter.requiresGrad)).toBe(true)
  })

  it('of the prompt stage has the prompt and LoRA together', async () => {
    const prompt = torch.randn([3, 48])
    const path = await variant((name, tensor) => [[name.replace('base_model.', 'base_model.base_model.'), tensor]], {
      [`${text}base_model.prompt_encoder.default.embedding.weight`]: prompt,
      [`${text}word_embeddings.weight`]: torch.zeros([97, 48]),
    })
    const { model } = await loadPublished(path, towers)
    const wanted = await byHand({ kind: 'prompt', numVirtualTokens: 3 }, { 'embedding.weight': prompt }, true)
    expect(features(model).text).toEqual(wanted)
    expect(wanted).not.toEqual(features(loadedTowers.model).text)
  })

  it('with a prefix', async () => {
    const prefix = torch.randn([4, 2 * 2 * 48])
    const path = await variant(
      (name, tensor) => (isLora(name) ? [] : [[name.replace('base_model.model.', 'base_model.'), tensor]]),
      {
        [`${text}prompt_encoder.default.embedding.weight`]: prefix,
        [`${text}word_embeddings.weight`]: torch.zeros([97, 48]),
      },
    )
    const { model } = await loadPublished(path, towers)
    expect(features(model).text).toEqual(
      await byHand({ kind: 'prefix', numVirtualTokens: 4 }, { 'embedding.weight': prefix }),
    )
  })

  it('with AdaLoRA, IA3, or no adapter', async () => {
    const plain = await variant((name, tensor) =>
      isLora(name) ? [] : [[name.replace('base_model.model.', ''), tensor]],
    )
    const without = await byHand(null, {})
    expect(features((await loadPublished(plain, towers)).model).text).toEqual(without)

    const scale = torch.full([144, 1], 1.5)
    const ia3 = await variant((name, tensor) =>
      isLora(name)
        ? name.includes('lora_A')
          ? [[name.replace('lora_A.default.weight', 'ia3_l.default'), scale]]
          : []
        : [[name.replace(/(c_attn)\.(weight|bias)$/, '$1.base_layer.$2'), tensor]],
    )
    const values = { 'h.0.attn.c_attn.ia3_l': scale, 'h.1.attn.c_attn.ia3_l': scale }
    expect(features((await loadPublished(ia3, towers)).model).text).toEqual(
      await byHand({ kind: 'ia3', targetModules: ['attn.c_attn'], feedforwardModules: [] }, values),
    )

    const ranks = torch.tensor([[0.5], [0.25], [1]])
    const [a, b] = [torch.randn([3, 48]), torch.randn([144, 3])]
    const adalora = await variant((name, tensor) => {
      if (!isLora(name)) return [[name, tensor]]
      if (name.includes('lora_B')) return []
      const stem = name.replace('.lora_A.default.weight', '')
      return [
        [`${stem}.lora_A.default`, a],
        [`${stem}.lora_B.default`, b],
        [`${stem}.lora_E.default`, ranks],
        [`${stem}.ranknum.default`, torch.tensor([3])],
      ]
    })
    const triplets = Object.fromEntries(
      ['h.0.attn.c_attn', 'h.1.attn.c_attn'].flatMap((path) => [
        [`${path}.lora_A`, a],
        [`${path}.lora_B`, b],
        [`${path}.lora_E`, ranks],
      ]),
    )
    const config: AdapterConfig = { kind: 'adalora', initR: 3, alpha: 8, totalStep: 10, targetModules: ['attn.c_attn'] }
    expect(features((await loadPublished(adalora, towers)).model).text).toEqual(await byHand(config, triplets))
  })

  it('in bfloat16 stays so, and casts where asked', async () => {
    const path = place('.ckpt')
    const source = await openWeights(official)
    torch.scope(() =>
      torch.save(
        new Map([['state_dict', new Map(source.names.map((name) => [name, source.tensor(name).to('bfloat16')]))]]),
        path,
      ),
    )
    const { model } = await loadPublished(path, towers)
    expect(model.image.parameters()[0]!.dtype).toBe('bfloat16')
    const { model: wide } = await loadPublished(path, { ...towers, dtype: 'float32' })
    const [found, wanted] = [features(wide), features(loadedTowers.model)]
    for (const [index, value] of found.text.entries()) expect(value).toBeCloseTo(wanted.text[index]!, 1)
  })

  it('that is something else is refused in words', async () => {
    await expect(loadPublished(join(towers.text, 'model.safetensors'))).rejects.toThrow(
      /expected a checkpoint of the published CLEFT code/,
    )
    await expect(loadPublished(official)).rejects.toThrow(
      /expected the image tower .* to be one of .*dinov2_vitb14_reg.*--image FOLDER/,
    )
    const strange = await variant((name, tensor) => [[name, tensor]], { 'momentum_encoder.weight': torch.zeros([1]) })
    await expect(loadPublished(strange, towers)).rejects.toThrow(/also has momentum_encoder.weight/)
    const missing = await variant((name, tensor) => (name.includes('ln_f.bias') ? [] : [[name, tensor]]))
    await expect(loadPublished(missing, towers)).rejects.toThrow(/1 missing: ln_f.bias/)
  })
})

describe('convert', () => {
  it('makes a model folder of a published checkpoint, which gives the same', async () => {
    const out = place()
    const { files } = await convert(official, out, towers)
    expect(files.length).toBe(4)
    const model = await loadModel(out)
    expect(features(model)).toEqual(features(loadedTowers.model))
    expect(model.parameters().every(({ requiresGrad }) => !requiresGrad)).toBe(true)
    const trained = await loadModel(out, { trainable: true })
    const names = [...trained.namedParameters()].filter(([, { requiresGrad }]) => requiresGrad).map(([name]) => name)
    expect(names.some((name) => name.includes('lora_A'))).toBe(true)
    expect(names.some((name) => name.startsWith('image.'))).toBe(true)
    expect(names.filter((name) => name.startsWith('text.') && !name.includes('lora_'))).toEqual([])
  })

  it('writes down how long texts are, which the checkpoint does not say', async () => {
    const out = place()
    await convert(official, out, { ...towers, maximumLength: 9 })
    expect((await loadModel(out)).encoding.maximumLength).toBe(9)
  })

  it('refuses another language model than the one that was trained with', async () => {
    const out = place()
    await convert(official, out, towers)
    const other = place()
    mkdirSync(other)
    writeFileSync(join(other, 'config.json'), readFileSync(join(towers.text, 'config.json')))
    const source = await openWeights(towers.text)
    const state = new Map(source.names.map((name) => [name, source.tensor(name)]))
    state.set(source.names[0]!, state.get(source.names[0]!)!.add(1))
    torch.saveSafetensors(state, join(other, 'model.safetensors'))
    expect(fingerprint(source)).not.toBe(fingerprint(await openWeights(other)))
    await expect(loadModel(out, { textFolder: other })).rejects.toThrow(
      /expected the language model that .* is another one/,
    )
    const config = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8')) as Record<string, unknown>
    writeFileSync(join(out, 'config.json'), JSON.stringify({ ...config, version: 9 }))
    await expect(loadModel(out)).rejects.toThrow(/at version:/)
  })

  it('takes a published checkpoint apart into what transformers and peft read', async () => {
    const out = place()
    await convert(official, out, { ...towers, to: 'transformers' })
    const written = await openWeights(join(out, 'text'))
    const source = await openWeights(towers.text)
    expect([...written.names].sort()).toEqual(source.names.filter((name) => name !== 'lm_head.weight').sort())
    for (const name of written.names) expect(written.tensor(name).equal(source.tensor(name)), name).toBe(true)
    // transformers 5 refuses 1 where its own config has 1.0
    expect(readFileSync(join(out, 'image', 'config.json'), 'utf8')).toMatch(/"layerscale_value": 1\.0,/)
    const adapter = await openWeights(join(out, 'adapter', 'adapter_model.safetensors'))
    const wanted = await openWeights(join(reference.folder, 'adapter', 'adapter_model.safetensors'))
    expect([...adapter.names].sort()).toEqual([...wanted.names].sort())
    for (const name of adapter.names) expect(adapter.tensor(name).equal(wanted.tensor(name)), name).toBe(true)
  })

  it("goes to DINOv2's hub names and back without a difference", async () => {
    const [hub, back] = [place('.pth'), place()]
    await convert(towers.image, hub, { to: 'hub' })
    expect((await openWeights(hub)).names).toContain('blocks.0.attn.qkv.weight')
    await convert(hub, back, { image: towers.image })
    expect(
      readFileSync(join(back, 'model.safetensors')).equals(readFileSync(join(towers.image, 'model.safetensors'))),
    ).toBe(true)
  })

  it('writes old names of adapters as peft does today', async () => {
    const [old, out] = [place(), place()]
    mkdirSync(old)
    writeFileSync(
      join(old, 'adapter_config.json'),
      readFileSync(join(reference.folder, 'adapter', 'adapter_config.json')),
    )
    const source = await openWeights(join(reference.folder, 'adapter', 'adapter_model.safetensors'))
    const renamed = source.names.map(
      (name) => [name.replace(/\.weight$/, '.default.weight'), source.tensor(name)] as const,
    )
    torch.save(new Map(renamed), join(old, 'adapter_model.bin'))
    await convert(old, out)
    expect([...(await openWeights(join(out, 'adapter_model.safetensors'))).names].sort()).toEqual(
      [...source.names].sort(),
    )
    const model = await loadAdapter(await loadTextModel(towers.text), out)
    expect(model.active).toEqual(['default'])
  })

  it('casts, and refuses what it cannot do', async () => {
    const out = place('.safetensors')
    await convert(towers.text, out, { dtype: 'bfloat16' })
    const written = await openWeights(out)
    expect(written.tensor(written.names[0]!).dtype).toBe('bfloat16')
    await expect(convert('/no/such', out)).rejects.toThrow(/expected a file or a folder/)
    await expect(convert(towers.text, place(), { to: 'hub' })).rejects.toThrow(/expected DINOv2's tensors for 'hub'/)
    await expect(convert(towers.text, place('.onnx'))).rejects.toThrow(/expected a folder, or a file that ends in/)
    await expect(convert(join(reference.folder, 'adapter'), place(), { to: 'cleft' })).rejects.toThrow(
      /expected 'peft' for an adapter/,
    )
  })
})
