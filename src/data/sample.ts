import type { Problems } from './problems.js'

/*
 * What a data set is once its tables are read: rows of images with what is known of them. No pixels here.
 */

/** A finding's value in a table. */
export const POSITIVE = 1
export const NEGATIVE = 0
export const UNCERTAIN = -1
/** The cell is empty: not mentioned. */
export const BLANK = -2

export interface Attributes {
  readonly sex: 'F' | 'M' | null
  /** In years. */
  readonly age: number | null
  /** 'AP', 'PA', 'LATERAL'; in mammography 'CC', 'MLO'. */
  readonly view: string | null
  /** In mammography: 'L', 'R'. */
  readonly side: 'L' | 'R' | null
}

/** One image. */
export interface Sample {
  /** Its row in the table, counted from 0 before any filter. */
  readonly row: number
  /** Below the data set's root, with '/'. Checked not to leave it. */
  readonly path: string
  /** Everything is split and resampled by it. */
  readonly patient: string
  /** What the text encoder reads in training; null where the data set has labels only. */
  readonly caption: string | null
  /** What stands before each class prompt for this image (EMBED), or null. */
  readonly promptPrefix: string | null
  /** Index into {@link Dataset.classes}; null where the image has no class, or several. */
  readonly label: number | null
  /** A value (1, 0, -1, BLANK) for each of {@link Dataset.findings}; null where the data set has none. */
  readonly findings: Int8Array | null
  readonly attributes: Attributes
}

/** A class of a zero-shot task, and the texts that stand for it (several: an ensemble). */
export interface ClassPrompt {
  readonly name: string
  readonly prompts: readonly string[]
}

export interface Dataset {
  readonly kind: string
  /** The folder that paths begin at. */
  readonly root: string
  /** Names of the findings of multi-label data, in the published order; empty where there are none. */
  readonly findings: readonly string[]
  readonly classes: readonly ClassPrompt[]
  readonly samples: readonly Sample[]
  /** Rows that could not be used, and why. */
  readonly problems: Problems
  /** SHA-256 of rows, paths, patients, captions and labels: names this very selection in results. */
  readonly hash: string
  /** The image of a sample: the path of its file, or its bytes where it lies in an archive. Default: the file at root/path. */
  readonly open?: (sample: Sample) => Promise<string | Buffer>
  /** Which part of which split by patient this is; null where it is all there is. */
  readonly split?: { readonly name: string; readonly hash: string } | null
  /** How often each sample is drawn in training, compared with the others (class balance). Default: all alike. */
  readonly weights?: Float64Array | null
}

/** A data set with other samples of it, drawn alike: its own fields, also where they are getters. */
export function withSamples(dataset: Dataset, samples: readonly Sample[]): Dataset {
  const { kind, root, findings, classes, problems, hash, open } = dataset
  return { kind, root, findings, classes, samples, problems, hash, ...(open && { open }) }
}
