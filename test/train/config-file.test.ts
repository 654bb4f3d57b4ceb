import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { readNamedConfig } from '../../src/models/index.js'
import { readRunOptions } from '../../src/train/config-file.js'
import type { FullOptions, FullPretrainOptions } from '../../src/train/options/index.js'
import { warmupOf } from '../../src/train/options/index.js'
import { listRecipes, readRecipe } from '../../src/train/recipes.js'
import { usualLength } from '../../src/train/text-length.js'
import { parseOptions as parseAny, type TrainOptions } from '../../src/train/train.js'

/** Of pre-training, as all of these are. */
function parseOptions(options: TrainOptions): FullPretrainOptions {
  const full: FullOptions = parseAny(options)
  if (full.stage !== 'pretrain') throw new Error(`expected options of pre-training, but they are of '${full.stage}'`)
  return full
}

const folder = mkdtempSync(join(tmpdir(), 'cleft-config-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

let count = 0
function fileOf(text: string, ending = 'yaml'): string {
  count += 1
  const path = join(folder, `${count}.${ending}`)
  writeFileSync(path, text)
  return path
}

/** Those that nobody published: for few images, and small machines. */
const ownRecipes = ['cleft-small', 'clip-bert-small', 'few-images']

describe('recipes', () => {
  it.each(listRecipes())('%s is a run but for its data and folder', (name) => {
    const { about } = readRecipe(name)
    expect(about).toMatch(/\.$/)
    const options = readRunOptions({ recipe: name, options: { data: { root: 'd' }, out: 'o' } })
    const full = parseOptions(options)
    expect(full.out).toBe('o')
    if (!ownRecipes.includes(name)) expect(full).toMatchObject({ steps: 40_000, batchSize: 72, embeddingWidth: 512 })
    // nothing that is written is lost on the way
    expect(full).toMatchObject(readRecipe(name).options)
    for (const model of [full.image.model, full.text.model]) {
      if (typeof model === 'string') expect(() => readNamedConfig(model)).not.toThrow()
    }
  })

  it('of the small size differ in the text alone', () => {
    const of = (recipe: string) => parseOptions(readRunOptions({ recipe, options: { data: { root: 'd' }, out: 'o' } }))
    const { text, peft, ...cleft } = of('cleft-small')
    const { text: bert, peft: none, ...baseline } = of('clip-bert-small')
    expect(baseline).toEqual(cleft)
    expect(none).toBeNull()
    expect(peft).toMatchObject({ type: 'lora' })
    expect(bert.projection).toEqual(text.projection)
  })

  it('have the published settings', () => {
    const of = (recipe: string) => parseOptions(readRunOptions({ recipe, options: { data: { root: 'd' }, out: 'o' } }))
    expect(of('cleft-chexpert')).toMatchObject({
      image: { model: 'dinov2_vitb14_reg', pooling: 'mean-prenorm', projection: { kind: 'linear' } },
      text: { model: 'biomedlm', pooling: 'first-pad', ownDropout: false },
      peft: { type: 'lora', r: 8, alpha: 32, dropout: 0.1 },
      optimizer: { type: 'adamw', lr: 4e-5, lrMin: 1e-8, weightDecay: 0.1, clipNorm: null },
      precision: 'bfloat16',
    })
    expect(of('cleft-chexpert-published')).toMatchObject({ targets: 'identity', text: { ownDropout: true } })
    expect(of('cleft-embed')).toMatchObject({ data: { kind: 'embed' } })
    expect(of('clip-bert')).toMatchObject({ peft: null, image: { pooling: 'cls' }, text: { pooling: 'cls' } })
    expect(of('clip-bert-published')).toMatchObject({
      image: { pooling: 'mean-patches', projection: { kind: 'mlp', hiddenWidth: 2048 } },
      text: { layers: 6, projection: { kind: 'mlp', hiddenWidth: 2048 } },
    })
    expect(['cleft-chexpert', 'cleft-embed', 'clip-bert'].map((name) => warmupOf(of(name)))).toEqual([4000, 4000, 4000])
    // and the length of texts, by the captions
    const lengthOf = (recipe: string, ...set: string[]) => {
      const options = readRunOptions({ recipe, set, options: { data: { root: 'd' }, out: 'o' } })
      const { text, data } = parseOptions(options)
      return text.maximumLength ?? usualLength(data)
    }
    expect(listRecipes().map((name) => lengthOf(name))).toEqual(
      listRecipes().map((name) => (name === 'cleft-embed' ? 72 : 64)),
    )
    expect(lengthOf('cleft-embed', 'data.captions.style=natural')).toBe(144)
    expect(lengthOf('cleft-embed', 'data.captions.style=structural')).toBe(144)
    expect(lengthOf('cleft-embed', 'data.captions.style=simple')).toBe(72)
    expect(lengthOf('cleft-chexpert', 'data.captions.style=negative')).toBe(96)
    expect(lengthOf('cleft-small', 'data.kind=embed', 'data.captions.style=natural')).toBe(144)
    expect(lengthOf('cleft-embed', 'data.captions.style=natural', 'text.maximumLength=100')).toBe(100)
    // of fewer steps the same part
    expect(warmupOf(of('clip-bert-published'))).toBe(16_000)
    expect(warmupOf({ ...of('clip-bert-published'), steps: 100 })).toBe(40)
    expect(warmupOf({ ...of('cleft-chexpert'), steps: 100 })).toBe(10)
  })

  it('refuse a warm-up that does not fit', () => {
    const recipe = { recipe: 'clip-bert', data: { root: 'd' }, out: 'o', steps: 100 }
    const refuse = (optimizer: object) => expect(() => parseOptions({ ...recipe, optimizer }))
    refuse({ warmupSteps: 101 }).toThrow(/optimizer.warmupSteps: expected the 100 steps of the run at most/)
    refuse({ warmupSteps: 5, warmupFraction: 0.1 }).toThrow(/one of warmupSteps and warmupFraction/)
    refuse({ warmupFraction: 1.1 }).toThrow(/warmupFraction/)
    expect(warmupOf(parseOptions({ ...recipe, optimizer: { warmupSteps: 100 } }))).toBe(100)
  })

  it('of prompt tuning warm up as published, and less of a shorter run', () => {
    const of = (steps?: number) => {
      const run = { stage: 'prompt', from: folder, data: { kind: 'chexpert', root: 'd' }, out: 'o' } as const
      return parseAny({ ...run, ...(steps !== undefined && { steps }), optimizer: { lr: 1e-3 } })
    }
    expect(of()).toMatchObject({ steps: 8000, optimizer: { type: 'sgd', momentum: 0.9, lr: 1e-3, weightDecay: 1e-3 } })
    expect([of(), of(400), of(60), of(1)].map(warmupOf)).toEqual([100, 100, 15, 0])
  })

  it('are options of train() too', () => {
    const options = { recipe: 'clip-bert', data: { root: 'd' }, out: 'o', text: 'biomedlm', optimizer: { lr: 1e-3 } }
    const full = parseOptions(options)
    expect(full).toMatchObject({
      image: { model: 'deit_base_patch16_224', pooling: 'cls' },
      data: { kind: 'chexpert' },
    })
    expect(full.optimizer).toMatchObject({ lr: 1e-3, weightDecay: 0.1 })
    // a name alone is a tower of its own, with nothing of the recipe's
    expect(full.text.model).toBe('biomedlm')
    expect([full.text.pooling, full.text.maximumLength]).toEqual([undefined, undefined])
    expect(() => parseOptions({ ...options, recipe: 'x' })).toThrow(/expected one of/)
  })

  it('once resolved are not applied again', () => {
    const set = ['text=other', 'peft={"type":"ia3"}', 'data.root=d', 'out=o']
    const full = parseOptions(readRunOptions({ recipe: 'clip-bert-published', set }))
    expect(full.text.layers).toBe(undefined)
    const again = parseOptions(readRunOptions({ file: fileOf(JSON.stringify(full), 'json') }))
    expect(again).toEqual(JSON.parse(JSON.stringify(full)))
  })

  it('are named where another name comes', () => {
    expect(() => readRunOptions({ recipe: 'nothing' })).toThrow(/expected one of cleft-chexpert, .*'nothing'/)
    expect(() => readRunOptions({ recipe: '../train' })).toThrow(/expected one of/)
  })
})

describe('a configuration', () => {
  it('is read from YAML and from JSON', () => {
    const yaml = fileOf('stage: pretrain\ndata: {kind: chexpert, root: d} # the data\noptimizer:\n  lr: 1e-4\n')
    const options = { stage: 'pretrain', data: { kind: 'chexpert', root: 'd' }, optimizer: { lr: 1e-4 } }
    expect(readRunOptions({ file: yaml })).toEqual(options)
    expect(readRunOptions({ file: fileOf(JSON.stringify(options), 'json') })).toEqual(options)
    expect(readRunOptions({ file: fileOf(JSON.stringify(options), 'conf') })).toEqual(options)
  })

  it('goes over its recipe, settings over it, and options over all', () => {
    const file = fileOf('recipe: cleft-chexpert\nsteps: 5\nbatchSize: 4\nseed: 3\n')
    const set = ['batchSize=6', 'seed=4', 'optimizer.lr=0.5', 'device=cpu', 'optimizer.clipNorm=1', 'batchSize=7']
    const options = readRunOptions({ file, set, options: { seed: 5, data: { root: 'r' }, out: undefined } })
    expect(options).toMatchObject({ steps: 5, batchSize: 7, seed: 5, device: 'cpu' })
    expect(options.optimizer).toMatchObject({ lr: 0.5, clipNorm: 1, weightDecay: 0.1 })
    expect(options.data).toMatchObject({ kind: 'chexpert', root: 'r', views: ['AP', 'PA'] })
    expect('out' in options).toBe(false)
    expect(readRunOptions({ file, recipe: 'clip-bert' })).toMatchObject({ peft: null, steps: 5 })
    expect('recipe' in options).toBe(false)
  })

  it('takes values as JSON where they are some, and as texts elsewhere', () => {
    const set = ['a=1', 'b=true', 'c=null', 'd=["x"]', 'e=x=y', 'f=', 'g={"h": 1}', 'i=/a/b.c', 'j="1"']
    expect(readRunOptions({ set })).toEqual({
      a: 1,
      b: true,
      c: null,
      d: ['x'],
      e: 'x=y',
      f: '',
      g: { h: 1 },
      i: '/a/b.c',
      j: '1',
    })
  })

  it('does not mix kinds, models and lists', () => {
    const base =
      'peft: {type: lora, r: 4}\nimage: tower\ntext: {model: {model_type: gpt2, n_embd: 8}, layers: 2}\nfreeze: [a, b]\n'
    const file = fileOf(base)
    const read = (...set: string[]) => readRunOptions({ file, set }) as unknown as Record<string, unknown>
    expect(read('peft.r=2').peft).toEqual({ type: 'lora', r: 2 })
    expect(read('peft.type=ia3').peft).toEqual({ type: 'ia3' })
    expect(read('peft=null').peft).toBe(null)
    expect(read('image.maskRatio=0.5').image).toEqual({ model: 'tower', maskRatio: 0.5 })
    expect(read('image=other').image).toBe('other')
    expect(read('text.model={"model_type":"bert"}').text).toEqual({ model: { model_type: 'bert' }, layers: 2 })
    expect(read('freeze=["c"]').freeze).toEqual(['c'])
  })

  it('that is wrong is refused in a sentence', () => {
    const refuse = (file: string) => expect(() => readRunOptions({ file }))
    refuse(join(folder, 'none.json')).toThrow(/expected a configuration file, but there is none at/)
    refuse(folder).toThrow(/but '.*' is none/)
    refuse(fileOf('{"a": ', 'json')).toThrow(/expected JSON/)
    refuse(fileOf('a: [1\nb: 2')).toThrow(/expected YAML or JSON, but .*line/)
    refuse(fileOf('a: 1\na: 2\n')).toThrow(/unique/)
    refuse(fileOf('- 1\n')).toThrow(/expected options by name/)
    refuse(fileOf('')).toThrow(/expected options by name/)
    refuse(fileOf('recipe: 3\n')).toThrow(/expected 'recipe' to be the name of one/)
    const bomb = ['a: &a [x, x, x, x, x, x, x, x, x]']
    for (let k = 1; k < 9; k += 1) {
      const [from, to] = ['abcdefghi'[k - 1], 'abcdefghi'[k]]
      bomb.push(
        `${to}: &${to} [*${from}, *${from}, *${from}, *${from}, *${from}, *${from}, *${from}, *${from}, *${from}]`,
      )
    }
    refuse(fileOf(bomb.join('\n'))).toThrow(/^.*yaml: expected YAML or JSON, but .*alias/i)
    for (const setting of ['a', '=1', 'a..b=1', '.a=1', '__proto__.x=1', 'a.__proto__=1', 'a b=1']) {
      expect(() => readRunOptions({ set: [setting] })).toThrow(/expected key.path=value/)
    }
  })

  it('changes no object but its own', () => {
    readRunOptions({
      file: fileOf('{"__proto__": {"polluted": 1}, "constructor": {"prototype": {"polluted": 1}}}', 'json'),
    })
    expect(({} as Record<string, unknown>).polluted).toBe(undefined)
  })
})
