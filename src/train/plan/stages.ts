import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Classifier } from '../../clip/classifier.js'
import { readEncoderConfig, refuseClassifier } from '../../clip/classifier-files.js'
import { addContext, wordsAfterContext } from '../../clip/context.js'
import { readModelConfig, TOKENIZER } from '../../clip/model-files.js'
import { TextTower } from '../../clip/text-tower.js'
import { buildModel, ImageEncoder, type JsonObject, type TextEncoder, TextTokenizer } from '../../models/index.js'
import { addAdapter, readAdapterConfig } from '../../peft/index.js'
import * as torch from '../../torch/index.js'
import { CaptionTokens } from '../caption-tokens.js'
import { FROZEN_BATCH } from '../feature-task.js'
import { openLabelled } from '../labelled-data.js'
import { lowerFrozen } from '../lower-frozen.js'
import type { FullFineTuneOptions, FullProbeOptions, FullPromptOptions } from '../options/index.js'
import { USUAL_BATCH } from '../options/shared.js'
import { applyFreezing } from '../parameter-groups.js'
import { AskedTexts, askedOf, trainContext } from '../prompt.js'
import { freezeUnusedOfImage } from '../towers.js'
import {
  between,
  IMAGES,
  imageFigures,
  type Measured,
  measureLayers,
  NO_FIGURES,
  probeImages,
  probeTexts,
  type SmallModel,
  textProbes,
  withCheckpointing,
  withLayers,
} from './measure.js'
import { type Plan, type PlanOptions, planOf } from './plan.js'
import { captionsOf, drawnTexts, measureContrastive } from './pretrain.js'
import { type Figures, type ProbeOptions, probe } from './probe.js'

/*
 * The plans of the stages that begin with a checkpoint: its config.json says what the model is, its weights are not read.
 */

interface Labels {
  readonly classes: number
  readonly batchSize: number
}

/** Of a stage that learns labels; where its data are not here, what is usual. */
async function labelsOf(options: FullProbeOptions | FullFineTuneOptions, notes: string[]): Promise<Labels> {
  if (!existsSync(options.data.root)) {
    notes.push(`classes: the data are not here (there is no '${options.data.root}'); 14 are assumed`)
    return { classes: 14, batchSize: options.batchSize ?? USUAL_BATCH }
  }
  const { labels, batchSize } = await openLabelled(options, { emit() {}, beginning: null })
  return { classes: labels.classes.length, batchSize }
}

const imageBytes = (images: number, size: number): number => images * 3 * size ** 2 * 4

/** A classifier on the encoder of a checkpoint. @param layers null: all of its */
async function smallClassifier(
  from: string,
  classes: number,
  layers: number | null,
): Promise<{ model: Classifier; image: number | null }> {
  const { config, pooling } = readEncoderConfig(from)
  const small =
    layers === null ? { config: config as JsonObject, full: null } : withLayers(config as JsonObject, layers)
  const image = await imageOf(small.config)
  const names = Array.from({ length: classes }, (_, k) => String(k))
  const model = torch.nn.construct({ device: 'cpu' }, () =>
    torch.scope(() => new Classifier({ image, classes: names, task: 'multi', pooling })),
  )
  return { model, image: small.full }
}

async function imageOf(config: JsonObject): Promise<ImageEncoder> {
  const image = await buildModel(config, { device: 'cpu' })
  if (image instanceof ImageEncoder) return image
  throw new TypeError(`from: expected an image encoder in the checkpoint, but it is a ${image.constructor.name}`)
}

/** Plans a step of fine-tuning. */
export async function planFineTuning(options: FullFineTuneOptions, given: PlanOptions): Promise<Plan> {
  const notes: string[] = []
  const { from, precision, freeze, unfreeze } = options
  const { classes, batchSize } = await labelsOf(options, notes)
  const { pooling, input } = readEncoderConfig(from)
  // patterns of names may name layers that a smaller model lacks
  const isWhole = freeze.length + unfreeze.length > 0
  const small = async (layers: number): Promise<SmallModel<Classifier>> => {
    const { model, image } = await smallClassifier(from, classes, isWhole ? null : layers)
    freezeUnusedOfImage(model.image, pooling)
    applyFreezing(model, options)
    model.train()
    return { model, image, text: null }
  }
  using found = await measureLayers(small, async ({ model }) => {
    const at = (images: number, checkpointing: boolean) => {
      model.image.checkpointing = checkpointing
      const finish = (feature: torch.Tensor) => model.classify(feature)
      const asked = { pooling, imageSize: input.size, images, parts: [model.head], finish }
      return ['image', probeImages(model, asked, { precision, device: given.device })] as const
    }
    return withCheckpointing(at)
  })
  const measured: Measured = {
    image: imageFigures(found),
    text: () => NO_FIGURES,
    tokens: () => 0,
    scores: (size) => 6 * size * classes * 4,
    batch: (size) => imageBytes(size, input.size),
    features: null,
  }
  const microBatch = Math.min(options.microBatch ?? batchSize, batchSize)
  const shape = { batchSize, microBatch, checkpointing: options.checkpointing }
  return planOf(measured, { ...options, shape, checkpointing: 'checkpointing', splits: true }, { ...given, notes })
}

/** An encoder at work before the first step: its images, and what a layer makes of them, without a gradient, in float32. */
function probeFrozen(
  model: torch.nn.Module & { image: ImageEncoder },
  pooling: Parameters<typeof probeImages>[1]['pooling'],
  imageSize: number,
  device: PlanOptions['device'],
) {
  const at = (images: number) =>
    [
      'image',
      torch.noGrad(() =>
        probeImages(
          model,
          { pooling, imageSize, images, parts: [], finish: (feature) => feature },
          { precision: 'float32', device },
        ),
      ),
    ] as const
  return { few: at(IMAGES[0]), more: at(IMAGES[1]) }
}

/** The encoder's weights, which stay, and the peak before the first step beside them. */
function frozenEncoder({ few, more }: { few: Figures; more: Figures }, imageSize: number) {
  const { peak, frozen, caches } = between(IMAGES[0], few, IMAGES[1], more)(FROZEN_BATCH)
  return { weights: { ...NO_FIGURES, frozen, caches }, before: peak + imageBytes(FROZEN_BATCH, imageSize) }
}

/** Plans a step of a linear probe. */
export async function planProbe(options: FullProbeOptions, given: PlanOptions): Promise<Plan> {
  const notes: string[] = []
  const { from, precision } = options
  refuseClassifier(from)
  const { classes, batchSize } = await labelsOf(options, notes)
  const { pooling, input } = readEncoderConfig(from)
  const rows = [32, 64] as const
  let width = 0
  const small = async (layers: number): Promise<SmallModel<Classifier>> => {
    const { model, image } = await smallClassifier(from, classes, layers)
    model.eval()
    model.image.requiresGrad_(false)
    return { model, image, text: null }
  }
  using found = await measureLayers(small, async ({ model }) => {
    width = model.image.featureWidth
    const head = (count: number) =>
      ['text', torch.scope(() => probeHead(model, count, { precision, device: given.device }))] as const
    return { ...probeFrozen(model, pooling, input.size, given.device), fewRows: head(rows[0]), moreRows: head(rows[1]) }
  })
  const { weights, before } = frozenEncoder(found, input.size)
  const head = between(rows[0], found.fewRows, rows[1], found.moreRows)
  const measured: Measured = {
    image: () => weights,
    text: head,
    tokens: () => 0,
    scores: (size) => 6 * size * classes * 4,
    batch: (size) => size * width * 4,
    features: weights.frozen + before + head(1).trainable,
  }
  const shape = { batchSize, microBatch: batchSize, checkpointing: false }
  return planOf(measured, { ...options, shape, checkpointing: null, splits: false }, { ...given, notes })
}

function probeHead(model: Classifier, rows: number, given: ProbeOptions): Figures {
  const features = torch.zeros([rows, model.image.featureWidth])
  return probe([model.head], given, () => model.classify(features))
}

/** The model of a checkpoint with a context; the language model below adapters is frozen. */
async function smallTower(
  options: FullPromptOptions,
  tokenizer: TextTokenizer,
  layers: number,
): Promise<SmallModel<TextTower>> {
  const { from, contextLength, objective, precision } = options
  const { image: imageModel, text: textModel, embeddingWidth } = readModelConfig(from)
  const image = withLayers(imageModel.config as JsonObject, layers)
  const text = withLayers(textModel.config as JsonObject, layers)
  const encoder = await imageOf(image.config)
  const language = (await buildModel(text.config, { device: 'cpu' })) as unknown as TextEncoder
  const model = torch.nn.construct({ device: 'cpu' }, () =>
    torch.scope(() => {
      let adapted = language
      for (const [name, json] of Object.entries(textModel.adapters)) {
        // patterns may name layers that a smaller model lacks, and change little
        const { rank_pattern: _, alpha_pattern: __, ...rest } = json
        adapted = addAdapter(adapted, readAdapterConfig(rest as never, from, () => {}).config, name)
      }
      return new TextTower({
        image: encoder,
        text: adapted,
        embeddingWidth,
        imagePooling: imageModel.pooling,
        imageProjection: imageModel.projection,
        textProjection: textModel.projection,
        pooling: textModel.pooling,
        padToken: textModel.padToken,
        maximumLength: textModel.maximumLength,
      })
    }),
  )
  await addContext(model, tokenizer, { length: contextLength, init: 'random' })
  if (objective === 'classification') model.requiresGrad_(false)
  trainContext(model)
  freezeUnusedOfImage(model.image, model.imagePooling)
  model.train(objective === 'contrastive')
  const files = { textWeights: textModel.weights }
  torch.dispose([...lowerFrozen(model, { precision, files, towers: ['text'] }).values()])
  return { model, image: image.full, text: text.full }
}

/** Plans a step of prompt tuning. */
export async function planPrompt(options: FullPromptOptions, given: PlanOptions): Promise<Plan> {
  refuseClassifier(options.from)
  const { image, text } = readModelConfig(options.from)
  const tokenizer = TextTokenizer.open(join(options.from, TOKENIZER), { padToken: text.padToken })
  const context = { tokenizer, imageSize: image.input.size }
  return options.objective === 'contrastive'
    ? planPromptContrastive(options, context, given)
    : planPromptClassification(options, context, given)
}

interface PromptContext {
  readonly tokenizer: TextTokenizer
  readonly imageSize: number
}

async function planPromptContrastive(
  options: FullPromptOptions,
  { tokenizer, imageSize }: PromptContext,
  given: PlanOptions,
): Promise<Plan> {
  const notes: string[] = []
  const { batchSize = USUAL_BATCH, microBatch = batchSize, seed, precision } = options
  const captions = (await captionsOf(options, notes)).map(wordsAfterContext)
  using measured = await measureContrastive(
    {
      small: (layers) => smallTower(options, tokenizer, layers),
      texts(model) {
        const tokens = new CaptionTokens(tokenizer, model.encoding.maximumLength!)
        return drawnTexts(captions, (each) => tokens.encode(each), { isCorpus: false, seed })
      },
      batchSize,
      imageSize,
    },
    { precision, device: given.device },
  )
  const shape = { batchSize, microBatch: Math.min(microBatch, batchSize), checkpointing: false }
  return planOf(measured, { ...options, shape, checkpointing: null, splits: true }, { ...given, notes })
}

async function planPromptClassification(
  options: FullPromptOptions,
  { tokenizer, imageSize }: PromptContext,
  given: PlanOptions,
): Promise<Plan> {
  const notes: string[] = []
  const { precision } = options
  // its texts are the classes': without the data nothing can be said
  const { dataset, labels, batchSize } = await openLabelled(
    { ...options, isNegated: true },
    {
      emit() {},
      beginning: null,
    },
  )
  const asked = askedOf(dataset, labels)
  let texts: AskedTexts | null = null
  let [width, embedding, tokensOf] = [0, 0, (_: number) => 0]
  let sizes: readonly [number, number] = [0, 0]
  using found = await measureLayers(
    (layers) => smallTower(options, tokenizer, layers),
    async ({ model }) => {
      width = model.image.featureWidth
      embedding = model.embeddingWidth
      texts ??= await AskedTexts.of(
        asked,
        new Set(dataset.samples.map(({ promptPrefix }) => promptPrefix)),
        new CaptionTokens(tokenizer, model.encoding.maximumLength!),
      )
      const { byPrefix } = texts
      const probes = textProbes(model, batchSize, (size) => {
        const prefixes = new Set(dataset.samples.slice(0, size).map(({ promptPrefix }) => promptPrefix))
        return [...prefixes].flatMap((prefix) => [...byPrefix.get(prefix)!])
      })
      tokensOf = probes.tokensOf
      sizes = [probes.few.tokens, probes.more.tokens]
      const own = { precision, device: given.device }
      return {
        ...probeFrozen(model, model.imagePooling, imageSize, given.device),
        fewTexts: ['text', probeTexts(model, probes.few.ids, own)] as const,
        moreTexts: ['text', probeTexts(model, probes.more.ids, own)] as const,
      }
    },
  )
  const { weights, before } = frozenEncoder(found, imageSize)
  const projection = (width + 1) * embedding * 4
  const own = between(sizes[0], found.fewTexts, sizes[1], found.moreTexts)
  const text = (size: number) => own(tokensOf(size))
  const { trainable, frozen } = text(batchSize)
  const measured: Measured = {
    image: () => ({ ...weights, frozen: weights.frozen + projection }),
    text,
    tokens: tokensOf,
    scores: (size) => (6 * asked.length + 2 * embedding) * size * 4,
    batch: (size) => size * width * 4,
    features: weights.frozen + projection + trainable + frozen + before,
  }
  const shape = { batchSize, microBatch: batchSize, checkpointing: false }
  return planOf(measured, { ...options, shape, checkpointing: null, splits: false }, { ...given, notes })
}
