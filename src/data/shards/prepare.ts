import { join } from 'node:path'
import { onEarlyExit } from '../../setup/exit.js'
import { writeRecord } from '../../setup/files.js'
import { type Reporter, silentReporter } from '../../setup/report.js'
import type { Decoder } from '../loader/decoders.js'
import { sourceOf } from '../loader/source.js'
import { Problems } from '../problems.js'
import type { Dataset, Sample } from '../sample.js'
import { imagesOfKind, PROBLEMS_FILE } from './format.js'
import { ShardWriter } from './writer.js'

export interface PrepareOptions {
  readonly decoder: Decoder
  /** Stop when this fraction of the files cannot be read. Default: 0.01. */
  readonly maxProblems?: number
  /** Images in a shard. Default: about 32 MiB of pixels. */
  readonly shardSize?: number
  readonly reporter?: Reporter
  readonly signal?: AbortSignal
}

export interface PrepareReport {
  /** Distinct images of the data set. */
  readonly images: number
  /** Prepared by this run. */
  readonly prepared: number
  /** There already. */
  readonly kept: number
  readonly problems: Problems
  readonly seconds: number
}

/**
 * Decodes every image of a data set once, into packed shards. What is in the folder already is kept, so that a run that was
 * stopped or killed goes on from its last whole shard. Files that cannot be read are listed in `problems.json`, and tried
 * again by the next run.
 *
 * @throws where too many files cannot be read, where the folder cannot be written or was prepared otherwise, and where the
 * signal says so; whole shards stay in all cases
 */
export async function prepareDataset(
  dataset: Dataset,
  folder: string,
  options: PrepareOptions,
): Promise<PrepareReport> {
  const { decoder, maxProblems = 0.01, reporter = silentReporter, signal } = options
  signal?.throwIfAborted()
  const started = performance.now()
  const images = distinct(dataset.samples)
  const problems = new Problems()
  const writer = new ShardWriter(
    folder,
    { kind: imagesOfKind(dataset.kind), settings: decoder.settings },
    options.shardSize,
  )
  const waiting = images.filter(({ path }) => !writer.has(path))
  const kept = images.length - waiting.length
  if (kept > 0) reporter.line(`${kept} of ${images.length} images are prepared already`)
  const progress = reporter.progress('prepare', images.length, 'images')
  progress.update(kept)
  const save = () => {
    writer.flush()
    writeRecord(join(folder, PROBLEMS_FILE), { problems: problems.list })
  }
  const saveAndClose = () => {
    try {
      save()
    } catch {
      // the first error is the one to tell; whole shards are there
    }
    writer.close()
  }
  // Ctrl-C ends the process: what is decoded is written first
  const forget = onEarlyExit(saveAndClose)
  let prepared = 0
  try {
    for await (const [sample, result] of inOrder(dataset, waiting, decoder, signal)) {
      if (result instanceof Error) {
        problems.add(result.message, sample)
        problems.check(images.length, maxProblems)
      } else {
        writer.add(sample.path, sample.row, result)
        prepared += 1
      }
      progress.update(kept + prepared + problems.list.length)
    }
    save()
    progress.finish()
  } finally {
    forget()
    saveAndClose()
  }
  return { images: images.length, prepared, kept, problems, seconds: (performance.now() - started) / 1000 }
}

/** One sample for each path: a table may name an image several times. */
function distinct(samples: readonly Sample[]): Sample[] {
  const seen = new Set<string>()
  return samples.filter(({ path }) => !seen.has(path) && seen.add(path))
}

/** Decodes a few at a time, and gives them in order: the shards are then the same whatever the number of workers. */
async function* inOrder(dataset: Dataset, samples: readonly Sample[], decoder: Decoder, signal?: AbortSignal) {
  const decode = async (sample: Sample) => {
    try {
      return await decoder.prepare(await sourceOf(dataset, sample))
    } catch (error) {
      return error instanceof Error ? error : new Error(String(error))
    }
  }
  // as many again, so that a slow file does not keep the others waiting
  const ahead = 2 * decoder.concurrency
  const running: Promise<Awaited<ReturnType<typeof decode>>>[] = []
  for (let at = 0; at < samples.length; at += 1) {
    for (let next = at + running.length; next < Math.min(samples.length, at + ahead); next += 1) {
      running.push(decode(samples[next]!))
    }
    const result = await running.shift()!
    signal?.throwIfAborted()
    yield [samples[at]!, result] as const
  }
}
