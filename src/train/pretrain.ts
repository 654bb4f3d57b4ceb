import { retrievalAccuracy } from '../clip/loss.js'
import { saveModel } from '../clip/model-files.js'
import type { TextTower } from '../clip/text-tower.js'
import { type Batch, DataLoader, type DatasetSpec, imagesOf, openDataset } from '../data/index.js'
import * as torch from '../torch/index.js'
import { CaptionTokens } from './caption-tokens.js'
import { contrastiveStep } from './contrastive-step.js'
import { Corpus, checkCorpus, checkSharing } from './corpus.js'
import { runFigures } from './figures.js'
import { GraphedContrastiveStep, whyNoGraph } from './graphed-step.js'
import { inputPicture } from './log/pictures.js'
import { lowerFrozen } from './lower-frozen.js'
import type { FullPretrainOptions } from './options/index.js'
import { ownMemory, parameterGroups } from './parameter-groups.js'
import { seeded } from './random-stream.js'
import type { RunContext } from './run.js'
import type { Task } from './task.js'
import { buildTowers, resumeTowers } from './towers.js'
import { validate } from './validate.js'
import { judgedBy, validationData, validationLoader } from './validation-data.js'
import { trainsMoreThanSaved, WholeAdapter } from './whole-adapter.js'

/**
 * Contrastive pre-training of both towers (Du et al., MICCAI 2024, section 2).
 *
 * @param from the checkpoint that it goes on from
 */
export async function pretrainTask(
  options: FullPretrainOptions,
  context: RunContext,
  from: string | null,
): Promise<Task<Batch>> {
  const { data, batchSize, microBatch, seed, imageSize, resize, oversample, augment, targets, precision } = options
  const { processes = torch.distributed.Processes.alone } = context
  const device = processes.deviceOf(options.device)
  const spec = { maxProblems: options.maxProblems, ...data } as unknown as DatasetSpec
  const dataset = await openDataset(spec)
  const images = imagesOf(options)
  try {
    const shared = {
      ...images.source,
      batchSize,
      seed,
      resize,
      size: imageSize,
      oversample,
      channels: 3 as const,
      device,
      maxProblems: options.maxProblems,
      signal: context.signal,
      rank: processes.rank,
      worldSize: processes.size,
    }
    const loader = new DataLoader(dataset, { ...shared, training: true, augment })
    const shares = options.negatives === 'corpus' ? loader.captionShares() : null
    if (shares !== null) checkCorpus(shares.size, options)
    const { validation } = options
    const held = await validationData(spec, validation, context)
    const validationBatches = validationLoader(held, validation?.maximumImages ?? 0, shared)
    const towers = await (from === null
      ? seeded(seed, () => buildTowers(options, device, context.logger))
      : resumeTowers(from, options, device, context.logger))
    const { model, tokenizer, files } = towers
    ownMemory(model)
    const tokens = new CaptionTokens(tokenizer, model.encoding.maximumLength!)
    const captions = dataset.samples.map(({ caption }) => caption)
    if (shares !== null) checkSharing(model, options)
    const corpus = shares && (await Corpus.of(shares, tokens, { priors: options.priors, device, processes }))
    // in float32, before anything is lowered
    const figures = await runFigures(towers, options, shares === null ? captions : [...shares.keys()])
    const masters = lowerFrozen(model, { precision, files })
    const graphed = options.cudaGraph ? graphedStep(model, options, { device, processes, context }) : null
    const isLocal = options.negatives === 'local'
    const adapter = trainsMoreThanSaved(options) ? new WholeAdapter(model, options) : null
    return {
      model,
      groups: parameterGroups(model, options.optimizer),
      batches: loader,
      logScale: model.logit_scale,
      start: {
        images: dataset.samples.length,
        captions: new Set(captions).size,
        figures,
      },
      async step(batch, tools) {
        const captions = batch.captions.map((each) => each ?? '')
        const texts = corpus?.texts ?? (await tokens.encode(captions))
        if (graphed !== null) {
          const own = { targets, captions }
          const { loss, scores } = graphed.run({ pixels: batch.pixels, texts, ...own }, tools.random)
          await tools.pause()
          return { loss, accuracy: () => retrievalAccuracy(scores, 1, own), held: [scores] }
        }
        const joined = isLocal ? captions : (await processes.gather(captions)).flat()
        const own = { targets, captions: joined }
        const all = corpus && { owners: corpus.ownersOf(joined), logShares: corpus.logShares, join: corpus.join }
        const { loss, scores } = await contrastiveStep(
          model,
          { pixels: batch.pixels, texts, corpus: all, ...own },
          { ...tools, microBatch, precision, processes, isLocal, regularizer: adapter?.regularizer },
        )
        return { loss, accuracy: () => retrievalAccuracy(scores, 1, own), held: [scores] }
      },
      afterStep(step, skipped) {
        model.clampLogScale()
        adapter?.afterStep(step, skipped)
      },
      ...(adapter && { extra: adapter.extra }),
      validate:
        validationBatches &&
        ((pause) => validate(model, validationBatches, tokens, { targets, precision, pause, processes })),
      judgedBy: judgedBy(validation),
      saveModel: (folder) => saveModel(folder, model, { ...files, masters }),
      picture: inputPicture,
      async close() {
        await images.close()
        graphed?.[Symbol.dispose]()
        corpus?.[Symbol.dispose]()
        adapter?.[Symbol.dispose]()
        torch.dispose([...masters.values()])
        model.dispose()
      },
    }
  } catch (error) {
    await images.close()
    throw error
  }
}

/** The step as CUDA graphs; null where it cannot be, which is told. */
function graphedStep(
  model: TextTower,
  options: FullPretrainOptions,
  { device, processes, context }: { device: torch.Device; processes: { size: number }; context: RunContext },
): GraphedContrastiveStep | null {
  const onFallback = (reason: string) =>
    context.emit({ type: 'warning', message: `cudaGraph: the run goes on without CUDA graphs: ${reason}` })
  const reason = whyNoGraph(options, { device, processes: processes.size, model })
  if (reason === null) return new GraphedContrastiveStep(model, { precision: options.precision, onFallback })
  onFallback(reason)
  return null
}
