import { readdirSync, readFileSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as captions from '../../../src/data/captions/index.js'
import { Random } from '../../../src/data/random.js'
import {
  encodeText,
  findPreset,
  fromPretrained,
  GPT2Model,
  pretrainedFolder,
  readConfig,
  TextTokenizer,
} from '../../../src/models/index.js'
import * as torch from '../../../src/torch/index.js'
import { expectClose } from '../reference.js'

const here = dirname(fileURLToPath(import.meta.url))
const given = join(here, 'report-lm')
const scripts = join(here, '..', '..', '..', 'scripts', 'language')

type Torch = typeof torch
interface Grammar {
  drawRecord(random: Random, from: typeof captions): { texts: string[]; nats: number }
}
interface NextToken {
  tokensOf(records: readonly string[][], tokenizer: TextTokenizer, longest: number): Promise<number[][]>
  lossOf(binding: Torch, model: GPT2Model, records: readonly number[][]): torch.Tensor
  continuation(
    binding: Torch,
    model: GPT2Model,
    tokenizer: TextTokenizer,
    start: string,
    random: Random,
  ): Promise<string>
}
const script = (name: string): Promise<unknown> => import(/* @vite-ignore */ pathToFileURL(join(scripts, name)).href)

let model: GPT2Model
let tokenizer: TextTokenizer
let folder: string
let grammar: Grammar
let nextToken: NextToken

beforeAll(async () => {
  folder = await pretrainedFolder('cleft-report-lm')
  model = (await fromPretrained('cleft-report-lm', { frozen: true })) as GPT2Model
  tokenizer = TextTokenizer.open(folder)
  grammar = (await script('grammar.mjs')) as Grammar
  nextToken = (await script('next-token.mjs')) as NextToken
})
afterAll(() => model.dispose())

const draw = (seed: number, count: number) =>
  Array.from({ length: count }, (_, index) => grammar.drawRecord(new Random(seed, 'test', index), captions))

describe('the preset cleft-report-lm', () => {
  it('is a GPT-2 of less than 4 MiB beside its preset, with a licence', () => {
    expect(model).toBeInstanceOf(GPT2Model)
    expect([model.layerCount, model.width, model.vocabularySize]).toEqual([4, 128, tokenizer.vocabularySize])
    const sizes = readdirSync(folder).map((name) => statSync(join(folder, name)).size)
    expect(sizes.reduce((sum, each) => sum + each, 0)).toBeLessThan(4 * 2 ** 20)
    const preset = findPreset('cleft-report-lm')!
    expect(preset.licence).toBe('Apache-2.0')
    expect(readConfig(folder)).toMatchObject(preset.config)
  })

  it("gives Python's ids, and texts again without their capitals", async () => {
    const { texts, ids, decoded } = JSON.parse(readFileSync(join(given, 'ids.json'), 'utf8')) as {
      texts: string[]
      ids: number[][]
      decoded: string[]
    }
    expect(await tokenizer.encode(texts)).toEqual(ids)
    for (const [index, own] of ids.entries()) expect(await tokenizer.decode(own)).toBe(decoded[index])
    const drawn = draw(1, 200).flatMap((record) => record.texts)
    for (const [index, own] of (await tokenizer.encode(drawn)).entries()) {
      expect(await tokenizer.decode(own)).toBe(drawn[index])
    }
  })

  it("pads with its end, and has few tokens for captions' words", async () => {
    expect(tokenizer.padToken).toBe(tokenizer.tokenToId('<|endoftext|>'))
    const [start, inside] = await tokenizer.encode(['edema', 'with edema'])
    expect(start).toHaveLength(1)
    expect(inside![inside!.length - 1]).toBe(start![0])
    const caption = captions.chexpertCaption(captions.CHEXPERT_FINDINGS.map(() => 1))
    const [ids] = await tokenizer.encode([caption])
    expect(ids!.length).toBeLessThan(1.3 * caption.split(' ').length)
  })

  it("gives transformers' hidden states and logits", () => {
    torch.scope(() => {
      const file = torch.openSafetensors(join(given, 'hidden.safetensors'))
      const attentionMask = file.tensor('attention_mask')
      const { lastHidden, hiddenStates } = model.forward({
        inputIds: file.tensor('input_ids'),
        attentionMask,
        outputHiddenStates: true,
      })
      const close = { atol: 2e-5, rtol: 1e-4 }
      const seen = attentionMask.unsqueeze(-1)
      expectClose(hiddenStates![0]!, file.tensor('embeddings'), close)
      expectClose(lastHidden.mul(seen), file.tensor('last_hidden').mul(seen), close)
      expectClose(torch.linear(lastHidden.select(1, 0), model.wte.weight), file.tensor('last_logits'), close)
    })
  })
})

describe('the language of cleft-report-lm', () => {
  it("is its grammar's: little more perplexed by new records than the grammar's choices make necessary", async () => {
    const records = draw(2, 200)
    const ids = await nextToken.tokensOf(
      records.map(({ texts }) => texts),
      tokenizer,
      model.maximumPositions,
    )
    const loss = torch.noGrad(() => torch.scope(() => nextToken.lossOf(torch, model, ids).item()))
    const tokens = ids.reduce((sum, each) => sum + each.length - 1, 0)
    const least = records.reduce((sum, { nats }) => sum + nats, 0) / tokens
    expect(Math.exp(least)).toBeGreaterThan(1.5)
    expect(Math.exp(loss)).toBeLessThan(1.15 * Math.exp(least))
    // words in another order are another language
    const mixed = ids.map((each, index) => new Random(3, index).shuffle(each))
    expect(torch.noGrad(() => torch.scope(() => nextToken.lossOf(torch, model, mixed).item()))).toBeGreaterThan(
      3 * loss,
    )
  })

  it('goes on as captions do', async () => {
    const names = [...captions.CHEXPERT_FINDINGS, ...captions.NIH_FINDINGS].map(captions.findingWords)
    const finding = `(${[...names, 'no findings?'].join('|')})`
    const caption = new RegExp(`^${captions.CHEST_TEMPLATE}( ${finding})+( but this image has no( ${finding})+)?$`)
    const goOn = (seed: number) =>
      nextToken.continuation(torch, model, tokenizer, captions.CHEST_TEMPLATE, new Random(seed))
    const texts = await Promise.all(Array.from({ length: 20 }, (_, seed) => goOn(seed)))
    expect(new Set(texts).size).toBeGreaterThan(10)
    expect(texts.filter((text) => caption.test(text)).length).toBeGreaterThanOrEqual(18)
  })

  it('knows what is the same by other words', async () => {
    const phrases: Readonly<Record<string, readonly string[]>> = {
      edema: [
        'pulmonary edema',
        'interstitial edema is seen',
        'there is severe fluid overload',
        'diagnosis: alveolar edema',
      ],
      cardiomegaly: [
        'the heart is enlarged',
        'cardiac enlargement',
        'there is moderate cardiomegaly',
        'enlarged heart',
      ],
      effusion: [
        'pleural fluid',
        'a small left pleural effusion',
        'effusion on the right is noted',
        'findings: pleural fluid on both sides',
      ],
      atelectasis: [
        'volume loss in the bases',
        'linear atelectasis',
        'there is partial collapse of the lung',
        'patchy atelectasis',
      ],
      pneumothorax: [
        'apical pneumothorax',
        'pleural air is seen',
        'a large left pneumothorax',
        'there is air in the pleural space',
      ],
      fracture: [
        'rib fracture',
        'an old fracture of the left clavicle',
        'there is a fracture of a rib',
        'clavicle fracture on the right',
      ],
      nothing: [
        'normal chest',
        'no acute findings',
        'the examination is normal',
        'no acute cardiopulmonary abnormality',
      ],
    }
    const labels = Object.entries(phrases).flatMap(([label, texts]) => texts.map(() => label))
    const ids = await tokenizer.encode(Object.values(phrases).flat())
    const nearest = torch.scope(() => {
      const features = torch.noGrad(() =>
        encodeText(model, ids, { pool: 'first-pad', padToken: tokenizer.padToken, maximumLength: 64 }),
      )
      const centred = features.sub(features.mean(0, { keepdim: true }))
      const direction = torch.nn.functional.normalize(centred)
      const similarity = direction.matmul(direction.t()).fillDiagonal_(-1)
      return similarity.argmax(1).toArray() as number[]
    })
    const right = nearest.filter((other, index) => labels[other] === labels[index]).length
    // by chance: 0.11
    expect(right / labels.length).toBeGreaterThan(0.8)
  })
})
