import { existsSync } from 'node:fs'
import { isAbsolute, join, resolve } from 'node:path'
import { refuseClassifier } from '../clip/classifier-files.js'
import { addContext, contextVectors, wordsAfterContext } from '../clip/context.js'
import { checkDistinct } from '../clip/distinct-texts.js'
import { retrievalAccuracy, START_LOG_SCALE, similarityScores } from '../clip/loss.js'
import { loadModel, readModelFiles, type SaveModelOptions, saveModel, TOKENIZER } from '../clip/model-files.js'
import type { TextTower, TokenSequences } from '../clip/text-tower.js'
import { type AskedClass, askedClasses, askedFindings, promptOf } from '../data/captions/index.js'
import {
  type Batch,
  DataLoader,
  type Dataset,
  type DatasetSpec,
  imagesOf,
  openDataset,
  type Sample,
} from '../data/index.js'
import { TextTokenizer } from '../models/index.js'
import * as torch from '../torch/index.js'
import { CaptionTokens } from './caption-tokens.js'
import type { ClassLabels } from './class-labels.js'
import { contrastiveStep } from './contrastive-step.js'
import type { FeatureBatch } from './feature-batches.js'
import { featureTask } from './feature-task.js'
import { openLabelled } from './labelled-data.js'
import { inputPicture } from './log/pictures.js'
import { lowerFrozen } from './lower-frozen.js'
import type { FullPromptOptions } from './options/index.js'
import { USUAL_BATCH } from './options/shared.js'
import { ownMemory, parameterGroups } from './parameter-groups.js'
import { seeded } from './random-stream.js'
import type { RunContext } from './run.js'
import type { Task } from './task.js'
import { freezeUnusedOfImage } from './towers.js'
import { validate } from './validate.js'
import { judgedBy, validationData, validationLoader } from './validation-data.js'

/*
 * Prompt tuning: a learned context in place of the template before labels' words (Du et al., MICCAI 2024, section 2.3).
 */

interface Beginning {
  readonly device: torch.Device
  readonly model: TextTower
  readonly tokens: CaptionTokens
  readonly files: SaveModelOptions
  readonly spec: DatasetSpec
}

/**
 * The model with its context: that of the checkpoint, or a new one. What takes gradients is the context, and with the
 * contrastive objective the image encoder, its projection and the temperature.
 */
async function begin(options: FullPromptOptions, context: RunContext, from: string | null): Promise<Beginning> {
  const device = (context.processes ?? torch.distributed.Processes.alone).deviceOf(options.device)
  const folder = from ?? options.from
  refuseClassifier(folder)
  const files = readModelFiles(folder)
  const trainable = options.objective === 'contrastive'
  const model = await loadModel(folder, { device, trainable, ...(context.logger && { logger: context.logger }) })
  const { padToken } = model.encoding
  const tokenizer = TextTokenizer.open(join(folder, TOKENIZER), padToken === undefined ? {} : { padToken })
  const { contextLength: length, init, seed } = options
  if (from === null) await seeded(seed, () => addContext(model, tokenizer, { length, init }))
  trainContext(model)
  return {
    device,
    model,
    tokens: new CaptionTokens(tokenizer, model.encoding.maximumLength!),
    files: { ...files, textWeights: files.textWeights && { ...files.textWeights, name: placeOf(files, folder) } },
    spec: { maxProblems: options.maxProblems, ...options.data } as unknown as DatasetSpec,
  }
}

/** Of what reads texts the context alone takes gradients. */
export function trainContext(model: TextTower): void {
  for (const part of [model.text!, model.text_projection]) part.requiresGrad_(false)
  contextVectors(model).requiresGrad_(true)
}

/** Where the frozen language model is, seen from anywhere. */
function placeOf({ textWeights }: SaveModelOptions, folder: string): string {
  const { name } = textWeights!
  const beside = join(folder, name)
  return !isAbsolute(name) && existsSync(beside) ? resolve(beside) : name
}

/** @param from the checkpoint that it goes on from */
export function promptTask(
  options: FullPromptOptions,
  context: RunContext,
  from: string | null,
): Promise<Task<FeatureBatch> | Task<Batch>> {
  return options.objective === 'classification'
    ? classificationTask(options, context, from)
    : contrastiveTask(options, context, from)
}

/** What classes are asked by; of findings beside others also what denies them. One text each, after which to learn. */
export function askedOf(dataset: Dataset, { task, classes }: ClassLabels): readonly AskedClass[] {
  const asked = task === 'multi' ? askedFindings(dataset, classes) : askedClasses(dataset)
  const several = asked.find(({ prompts }) => prompts.length !== 1)
  if (several === undefined) return asked
  throw new RangeError(
    `data.prompts: expected one text for each class to learn a context for, but '${several.name}' has ${several.prompts.length}`,
  )
}

/** Token ids of the classes' texts, and then of their negations, after each prefix that some image has (EMBED). */
export class AskedTexts {
  private constructor(
    readonly byPrefix: ReadonlyMap<string | null, TokenSequences>,
    /** Distinct texts. */
    readonly count: number,
  ) {}

  /** @throws RangeError where classes cannot be told apart */
  static async of(
    asked: readonly AskedClass[],
    prefixes: ReadonlySet<string | null>,
    tokens: CaptionTokens,
  ): Promise<AskedTexts> {
    const texts = [
      ...asked.map(({ name, prompts }) => ({ name, text: prompts[0]! })),
      ...asked.flatMap(({ name, negations }) => (negations ? [{ name: `no ${name}`, text: negations[0]! }] : [])),
    ]
    const byPrefix = new Map<string | null, TokenSequences>()
    for (const prefix of prefixes) {
      const ids = await tokens.encode(texts.map(({ text }) => wordsAfterContext(promptOf(prefix, text))))
      checkDistinct(
        texts.map(({ name }, k) => ({ name, tokens: [ids[k]!] })),
        tokens.maximumLength,
      )
      byPrefix.set(prefix, ids)
    }
    return new AskedTexts(byPrefix, texts.length * prefixes.size)
  }

  /**
   * The scores of images and classes, [B, C]: cosine x temperature, in float32. Of a finding the difference from its
   * negation's, since a cosine alone has no zero point.
   */
  scores(model: TextTower, image: torch.Tensor, samples: readonly Sample[], labels: ClassLabels): torch.Tensor {
    const prefixes = [...new Set(samples.map(({ promptPrefix }) => promptPrefix))]
    const texts = prefixes.flatMap((prefix) => this.byPrefix.get(prefix)!)
    const all = similarityScores(image, model.encodeText(texts), model.logit_scale)
    const width = texts.length / prefixes.length
    const own = prefixes.length === 1 ? all : all.gather(1, columnsOf(samples, prefixes, width, all.device))
    if (labels.task === 'single') return own
    const count = labels.classes.length
    return own.narrow(1, 0, count).sub(own.narrow(1, count, count))
  }
}

/** Where the scores of each image's own prefix are: [B, width]. */
function columnsOf(
  samples: readonly Sample[],
  prefixes: readonly (string | null)[],
  width: number,
  device: torch.Tensor['device'],
): torch.Tensor {
  const group = new Map(prefixes.map((prefix, k) => [prefix, k]))
  return torch.tensor(
    samples.map(({ promptPrefix }) => Array.from({ length: width }, (_, k) => group.get(promptPrefix)! * width + k)),
    { dtype: 'int64', device: device as torch.Device },
  )
}

async function classificationTask(
  options: FullPromptOptions,
  context: RunContext,
  from: string | null,
): Promise<Task<FeatureBatch>> {
  refuseUnused(options, ['microBatch'])
  const { device, model, tokens, files } = await begin(options, context, from)
  try {
    model.eval()
    const data = await openLabelled({ ...options, isNegated: true }, context)
    const { dataset, held, labels } = data
    const prefixes = new Set([...dataset.samples, ...(held?.samples ?? [])].map(({ promptPrefix }) => promptPrefix))
    // the image encoder is done with when the features are there
    const masters = lowerFrozen(model, { precision: options.precision, towers: ['text'], files })
    const texts = await AskedTexts.of(askedOf(dataset, labels), prefixes, tokens)
    return await featureTask(
      {
        model,
        encoder: model.image,
        pooling: model.imagePooling,
        input: files.input!,
        device,
        data,
        captions: texts.count,
        logScale: model.logit_scale,
        classify: (features, samples) => texts.scores(model, model.projectImage(features), samples, labels),
        saveModel: (folder) => saveModel(folder, model, { ...files, masters }),
      },
      options,
      context,
    )
  } catch (error) {
    model.dispose()
    throw error
  }
}

/** @throws RangeError for an option of the other objective */
function refuseUnused(options: FullPromptOptions, names: readonly (keyof FullPromptOptions)[]): void {
  const given = names.filter((name) => options[name] !== undefined)
  if (given.length === 0) return
  throw new RangeError(
    `train: expected no ${given.join(', ')} with the objective '${options.objective}', which does not use it; leave it out`,
  )
}

/** As published: pre-training goes on with a context, the image encoder, its projection and a new temperature. */
async function contrastiveTask(
  options: FullPromptOptions,
  context: RunContext,
  from: string | null,
): Promise<Task<Batch>> {
  refuseUnused(options, ['labels', 'findings'])
  const { device, model, tokens, files, spec } = await begin(options, context, from)
  const { batchSize = USUAL_BATCH, microBatch, seed, augment, targets, precision, validation } = options
  const { processes = torch.distributed.Processes.alone } = context
  const images = imagesOf(options)
  const close = async () => {
    await images.close()
    model.dispose()
  }
  try {
    const dataset = await openDataset(spec)
    const held = await validationData(spec, validation, context)
    if (validation?.metric === 'auc') {
      throw new RangeError(
        "validation.metric: expected 'loss' or 'accuracy' for the contrastive objective, but received 'auc'",
      )
    }
    freezeUnusedOfImage(model.image, model.imagePooling)
    if (from === null) torch.noGrad(() => model.logit_scale.fill_(START_LOG_SCALE))
    ownMemory(model)
    const masters = lowerFrozen(model, { precision, files })
    model.train()
    const shared = {
      ...images.source,
      ...files.input!,
      seed,
      channels: 3 as const,
      device,
      maxProblems: options.maxProblems,
      signal: context.signal,
      rank: processes.rank,
      worldSize: processes.size,
    }
    const heldBatches = validationLoader(held, validation?.maximumImages ?? 0, { ...shared, batchSize })
    const words = (captions: readonly (string | null)[]) => captions.map((each) => wordsAfterContext(each ?? ''))
    const bare = { encode: (captions: readonly string[]) => tokens.encode(words(captions)) }
    return {
      model,
      groups: parameterGroups(model, options.optimizer),
      batches: new DataLoader(dataset, { ...shared, batchSize, training: true, augment }),
      logScale: model.logit_scale,
      start: {
        images: dataset.samples.length,
        captions: new Set(dataset.samples.map(({ caption }) => caption)).size,
        figures: null,
      },
      async step(batch, tools) {
        const captions = words(batch.captions)
        const texts = await tokens.encode(captions)
        const own = { targets, captions: (await processes.gather(captions)).flat() }
        const { loss, scores } = await contrastiveStep(
          model,
          { pixels: batch.pixels, texts, ...own },
          { ...tools, microBatch, precision, processes },
        )
        return { loss, accuracy: () => retrievalAccuracy(scores, 1, own), held: [scores] }
      },
      afterStep: () => model.clampLogScale(),
      validate:
        heldBatches &&
        (async (pause) => {
          const found = await validate(model, heldBatches, bare, { targets, precision, pause, processes })
          return { ...found, accuracy: found.accuracy1! }
        }),
      judgedBy: judgedBy(validation),
      saveModel: (folder) => saveModel(folder, model, { ...files, masters }),
      picture: inputPicture,
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}
