import { TextTower } from '../../clip/text-tower.js'
import { type DatasetSpec, openDataset, Random } from '../../data/index.js'
import { type JsonObject, type TextEncoder, TextTokenizer } from '../../models/index.js'
import * as torch from '../../torch/index.js'
import { CaptionTokens } from '../caption-tokens.js'
import { lowerFrozen } from '../lower-frozen.js'
import type { FullPretrainOptions } from '../options/index.js'
import { applyFreezing } from '../parameter-groups.js'
import { configOf, freezeUnused, imageTower, textTower, tokenizerPlace } from '../towers.js'
import {
  between,
  imageFigures,
  type Measured,
  measureLayers,
  probeImages,
  probeTexts,
  type SmallModel,
  type TextProbes,
  textProbes,
  withCheckpointing,
  withLayers,
} from './measure.js'
import { type Plan, type PlanOptions, planOf } from './plan.js'

/*
 * The plan of pre-training, and of what goes on with it.
 */

/** Plans a pre-training step. */
export async function planPretraining(options: FullPretrainOptions, { available, device }: PlanOptions): Promise<Plan> {
  const notes: string[] = []
  const captions = await captionsOf(options, notes)
  const { batchSize, microBatch = batchSize, image, imageSize, negatives, seed, precision } = options
  let encoded: { encode: Encode; padToken: number } | null = null
  using measured = await measureContrastive(
    {
      small: (layers) => smallModel(options, layers),
      async texts(model) {
        encoded ??= await encoder(options, model, notes)
        model.encoding.padToken = encoded.padToken
        return await drawnTexts(captions, encoded.encode, { isCorpus: negatives === 'corpus', seed })
      },
      batchSize,
      imageSize,
    },
    { precision, device },
  )
  const shape = { batchSize, microBatch: Math.min(microBatch, batchSize), checkpointing: image.checkpointing }
  const planned = { ...options, shape, checkpointing: 'image.checkpointing', splits: true }
  return planOf(measured, planned, { available, device, notes })
}

interface Contrastive {
  readonly small: (layers: number) => Promise<SmallModel<TextTower>>
  /** The texts of a batch of some size, encoded for a model. */
  readonly texts: (model: TextTower) => Promise<(batchSize: number) => (readonly number[])[]>
  readonly batchSize: number
  readonly imageSize: number
}

/** Measures both towers as a contrastive step runs them. */
export async function measureContrastive(
  { small, texts, batchSize, imageSize }: Contrastive,
  given: { precision: FullPretrainOptions['precision']; device: PlanOptions['device'] },
): Promise<Measured & Disposable> {
  let probes: TextProbes | null = null
  const found = await measureLayers(small, async ({ model, masters = 0 }) => {
    const textsOf = await texts(model)
    probes ??= textProbes(model, batchSize, textsOf)
    const at = (images: number, checkpointing: boolean) => {
      model.image.checkpointing = checkpointing
      const finish = (feature: torch.Tensor) => model.projectImage(feature)
      const asked = { pooling: model.imagePooling, imageSize, images, parts: [model.image_projection], finish }
      const figures = probeImages(model, asked, given)
      return ['image', { ...figures, frozen: figures.frozen + (given.device === 'cpu' ? masters : 0) }] as const
    }
    return {
      ...withCheckpointing(at),
      fewTexts: ['text', probeTexts(model, probes.few.ids, given)] as const,
      moreTexts: ['text', probeTexts(model, probes.more.ids, given)] as const,
    }
  })
  const { few, more, tokensOf } = probes!
  const text = between(few.tokens, found.fewTexts, more.tokens, found.moreTexts)
  return {
    image: imageFigures(found),
    text: (size) => text(tokensOf(size)),
    tokens: tokensOf,
    scores: (size) => 6 * size * size * 4,
    batch: (size) => size * 3 * imageSize ** 2 * 4,
    features: null,
    [Symbol.dispose]: found[Symbol.dispose],
  }
}

/** How many captions are drawn at most. */
const DRAWN = 8192

/** Texts as a step might draw them: of the corpus all, each once. */
export async function drawnTexts(
  captions: readonly string[],
  encode: Encode,
  { isCorpus, seed }: { isCorpus: boolean; seed: number },
): Promise<(batchSize: number) => (readonly number[])[]> {
  const random = new Random(seed)
  const drawn = isCorpus
    ? [...new Set(captions)]
    : Array.from({ length: DRAWN }, () => captions[random.integer(captions.length)] ?? '')
  const ids = await encode(drawn)
  return (batchSize) => ids.slice(0, isCorpus ? ids.length : Math.min(batchSize, ids.length))
}

/** Captions as a step might draw them. */
export async function captionsOf(
  { data, maxProblems }: Pick<FullPretrainOptions, 'data' | 'maxProblems'>,
  notes: string[],
): Promise<string[]> {
  try {
    const dataset = await openDataset({ maxProblems, ...data } as unknown as DatasetSpec)
    return dataset.samples.map(({ caption }) => caption ?? '')
  } catch (error) {
    notes.push(
      `captions: the data could not be read (${error instanceof Error ? error.message.split('\n')[0] : error}); all captions are assumed to differ, with 14 words each`,
    )
    const random = new Random(0)
    const word = () => `w${random.integer(200)}`
    return Array.from({ length: 8192 }, () => Array.from({ length: 14 }, word).join(' '))
  }
}

export type Encode = (captions: readonly string[]) => Promise<(readonly number[])[]>

/** Captions to token ids; where the tokenizer is not here, a token a word. */
async function encoder(
  { text }: FullPretrainOptions,
  model: TextTower,
  notes: string[],
): Promise<{ encode: Encode; padToken: number }> {
  const place = text.tokenizer ?? (typeof text.model === 'string' ? text.model : null)
  const limit = model.encoding.maximumLength!
  try {
    if (place === null) throw new Error('the model is a configuration, and text.tokenizer is not given')
    const tokenizer = TextTokenizer.open(await tokenizerPlace(place))
    const tokens = new CaptionTokens(tokenizer, limit)
    return { encode: (captions) => tokens.encode(captions), padToken: tokenizer.padToken }
  } catch (error) {
    notes.push(
      `tokens: the tokenizer is not here (${error instanceof Error ? error.message.split('\n')[0] : error}); a token for each word is assumed`,
    )
    const known = new Map<string, number>()
    const idOf = (word: string) => {
      if (!known.has(word)) known.set(word, 1 + (known.size % ((model.text as TextEncoder).vocabularySize - 1)))
      return known.get(word)!
    }
    const encode: Encode = async (captions) =>
      captions.map((caption) => caption.split(/\s+/).filter(Boolean).slice(0, limit).map(idOf))
    return { encode, padToken: 0 }
  }
}

/** Both towers with few layers, as a run would make them. */
async function smallModel(options: FullPretrainOptions, layers: number): Promise<SmallModel<TextTower>> {
  // patterns of names may name layers that a smaller model lacks
  const isWhole = options.freeze.length + options.unfreeze.length > 0
  const [imageConfig, textConfig] = [options.image, options.text].map(configOf)
  const image = withLayers(JSON.parse(await imageConfig!) as JsonObject, isWhole ? 1e9 : layers)
  const text = withLayers(JSON.parse(await textConfig!) as JsonObject, isWhole ? 1e9 : layers, options.text.layers)
  const small: FullPretrainOptions = {
    ...options,
    image: { ...options.image, model: isWhole ? JSON.parse(await imageConfig!) : image.config, pretrained: false },
    text: {
      ...options.text,
      model: isWhole ? JSON.parse(await textConfig!) : text.config,
      pretrained: false,
      layers: isWhole ? options.text.layers : undefined,
    },
  }
  const [imageModel, textModel] = [await imageTower(small, 'cpu'), await textTower(small, 'cpu')]
  const model = torch.nn.construct({ device: 'cpu' }, () =>
    torch.scope(
      () =>
        new TextTower({
          image: imageModel,
          text: textModel,
          embeddingWidth: options.embeddingWidth,
          imagePooling: options.image.pooling,
          imageProjection: options.image.projection,
          textProjection: options.text.projection,
          pooling: options.text.pooling,
          maximumLength: options.text.maximumLength,
          execution: options.text.execution,
        }),
    ),
  )
  freezeUnused(model)
  applyFreezing(model, options)
  model.train()
  // of what trains as a whole nothing is frozen
  const files = { textWeights: options.peft === null ? null : { name: '', fingerprint: '' } }
  const kept = lowerFrozen(model, { precision: options.precision, files })
  const masters = [...kept.values()].reduce((sum, each) => sum + each.numel() * each.elementSize(), 0)
  torch.dispose([...kept.values()])
  return { masters, model, image: isWhole ? null : image.full, text: isWhole ? null : text.full }
}
