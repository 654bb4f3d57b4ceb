import type { RunFigures } from './figures.js'

/** What a run tells while it goes on. */
export type TrainEvent =
  | StartEvent
  | StepEvent
  | { readonly type: 'validation'; readonly step: number; readonly metrics: Readonly<Record<string, number>> }
  | { readonly type: 'checkpoint'; readonly step: number; readonly folder: string }
  | SkippedEvent
  | ImageEvent
  | ProgressEvent
  | { readonly type: 'warning'; readonly message: string }

export interface StartEvent {
  readonly type: 'start'
  readonly stage: string
  readonly out: string
  /** Steps done before, where the run goes on. */
  readonly step: number
  readonly steps: number
  readonly images: number
  /** Distinct ones; null where the stage has none. */
  readonly captions: number | null
  readonly parameters: number
  readonly trainable: number
  /** Of a step that runs both encoders; else null. */
  readonly figures: RunFigures | null
  /** What a repetition to the bit needs to have alike, beside the configuration. */
  readonly device: string
  readonly threads: number
  /** That train together. */
  readonly processes: number
  /** Version of libtorch. */
  readonly torch: string
}

/** How far work is that goes before the first step. It is not kept. */
export interface ProgressEvent {
  readonly type: 'progress'
  /** What is made: 'features'. */
  readonly what: string
  readonly images: number
  readonly total: number
}

/** Something to look at: the first images as the model gets them. */
export interface ImageEvent {
  readonly type: 'image'
  readonly step: number
  readonly name: string
  readonly width: number
  readonly height: number
  readonly png: Uint8Array
}

/** Means over the steps since the last one, but `step`, `lr`, `logScale`, `accuracy`, which are the last step's. */
export interface StepEvent {
  readonly type: 'step'
  readonly step: number
  readonly steps: number
  readonly epoch: number
  readonly loss: number
  /**
   * In percent: retrieval at 1 within the batch, both directions; where there are classes, how many are right. Of several
   * processes those of the joined batch, but with classes or local negatives those of the first one's.
   */
  readonly accuracy: number
  readonly lr: number
  readonly gradientNorm: number
  /** ln of the temperature; null where the stage has none. */
  readonly logScale: number | null
  readonly samplesPerSecond: number
  /** The part of the time in which the step waited for images. */
  readonly waiting: number
  readonly secondsLeft: number
}

/** A step that was left out, since its loss or a gradient was not finite. */
export interface SkippedEvent {
  readonly type: 'skipped'
  readonly step: number
  readonly loss: number
  /** Rows of the batch's images in their table. */
  readonly rows: readonly number[]
}
