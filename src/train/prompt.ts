import { existsSync } from 'node:fs'
import { isAbsolute, join, resolve } from 'node:path'
import { addContext, contextVectors, wordsAfterContext } from '../clip/context.js'
import { retrievalAccuracy, START_LOG_SCALE, similarityScores } from '../clip/loss.js'
import { loadModel, readModelFiles, type SaveModelOptions, saveModel, TOKENIZER } from '../clip/model-files.js'
import type { TextTower, TokenSequences } from '../clip/text-tower.js'
import { findingWords } from '../data/captions/chest.js'
import { type Batch, DataLoader, type Dataset, type DatasetSpec, imagesOf, openDataset } from '../data/index.js'
import { TextTokenizer } from '../models/index.js'
import * as torch from '../torch/index.js'
import { CaptionTokens } from './caption-tokens.js'
import type { ClassLabels } from './class-labels.js'
import { contrastiveStep } from './contrastive-step.js'
import type { FeatureBatch } from './feature-batches.js'
import { featureTask } from './feature-task.js'
import { openLabelled } from './labelled-data.js'
import { inputPicture } from './log/pictures.js'
import type { FullPromptOptions } from './options/index.js'
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
  const files = readModelFiles(folder)
  const trainable = options.objective === 'contrastive'
  const model = await loadModel(folder, { device, trainable, ...(context.logger && { logger: context.logger }) })
  const { padToken } = model.encoding
  const tokenizer = TextTokenizer.open(join(folder, TOKENIZER), padToken === undefined ? {} : { padToken })
  const { contextLength: length, init, seed } = options
  if (from === null) await seeded(seed, () => addContext(model, tokenizer, { length, init }))
  for (const part of [model.text!, model.text_projection]) part.requiresGrad_(false)
  contextVectors(model).requiresGrad_(true)
  return {
    device,
    model,
    tokens: new CaptionTokens(tokenizer, model.encoding.maximumLength!),
    files: { ...files, textWeights: files.textWeights && { ...files.textWeights, name: placeOf(files, folder) } },
    spec: { maxProblems: options.maxProblems, ...options.data } as unknown as DatasetSpec,
  }
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

/** What a class is told by: its words; of a finding beside others also its negation. */
function classTexts(dataset: Dataset, labels: ClassLabels): string[] {
  if (labels.task === 'multi') {
    const words = labels.classes.map(findingWords)
    return [...words, ...words.map((each) => `no ${each}`)].map(wordsAfterContext)
  }
  const several = dataset.classes.find(({ prompts }) => prompts.length !== 1)
  if (several !== undefined) {
    throw new RangeError(
      `data.prompts: expected one text for each class to learn a context for, but '${several.name}' has ${several.prompts.length}`,
    )
  }
  return dataset.classes.map(({ prompts }) => wordsAfterContext(prompts[0]!))
}

/**
 * The scores of images and classes, [B, C]: cosine x temperature, in float32. Of a finding the difference from its
 * negation's, since a cosine alone has no zero point.
 */
function classScores(model: TextTower, image: torch.Tensor, texts: TokenSequences, labels: ClassLabels): torch.Tensor {
  const scores = similarityScores(image, model.encodeText(texts), model.logit_scale)
  if (labels.task === 'single') return scores
  const count = labels.classes.length
  return scores.narrow(1, 0, count).sub(scores.narrow(1, count, count))
}

async function classificationTask(
  options: FullPromptOptions,
  context: RunContext,
  from: string | null,
): Promise<Task<FeatureBatch>> {
  const { device, model, tokens, files } = await begin(options, context, from)
  try {
    model.eval()
    const data = await openLabelled({ ...options, isNegated: true }, context)
    const texts = await tokens.encode(classTexts(data.dataset, data.labels))
    return await featureTask(
      {
        model,
        encoder: model.image,
        pooling: model.imagePooling,
        input: files.input!,
        device,
        data,
        captions: texts.length,
        logScale: model.logit_scale,
        classify: (features) => classScores(model, model.projectImage(features), texts, data.labels),
        saveModel: (folder) => saveModel(folder, model, files),
      },
      options,
      context,
    )
  } catch (error) {
    model.dispose()
    throw error
  }
}

/** As published: pre-training goes on with a context, the image encoder, its projection and a new temperature. */
async function contrastiveTask(
  options: FullPromptOptions,
  context: RunContext,
  from: string | null,
): Promise<Task<Batch>> {
  const { device, model, tokens, files, spec } = await begin(options, context, from)
  const { batchSize, microBatch, seed, augment, targets, precision, validation } = options
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
          const found = await validate(model, heldBatches, bare, { targets, pause, processes })
          return { ...found, accuracy: found.accuracy1! }
        }),
      judgedBy: judgedBy(validation),
      saveModel: (folder) => saveModel(folder, model, files),
      picture: inputPicture,
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}
