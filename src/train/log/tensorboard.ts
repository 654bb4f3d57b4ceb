import type { StartEvent, TrainEvent } from '../events.js'
import { describeFigures } from '../figures.js'
import type { EventLog } from './event-log.js'
import { type Checksum, type SummaryValue, TfEventFile } from './tfevents.js'

/** Curves, images and the configuration of a run, for `tensorboard --logdir`. */
export class TensorBoardLog implements EventLog {
  readonly #file: TfEventFile

  constructor(folder: string, checksum: Checksum) {
    this.#file = new TfEventFile(folder, checksum)
  }

  /** @param configuration the run's, as JSON */
  start(event: StartEvent, configuration: string): void {
    // of an earlier start, what comes after the checkpoint happens again
    if (event.step > 0) this.#file.add(event.step + 1, 'session-start')
    this.#file.add(event.step, {
      summary: [
        { tag: 'configuration', text: `\`\`\`json\n${configuration}\n\`\`\`` },
        ...(event.figures === null ? [] : [{ tag: 'figures', text: describeFigures(event.figures).join('  \n') }]),
      ],
    })
  }

  write(event: TrainEvent): void {
    const summary = valuesOf(event)
    if (summary.length > 0 && 'step' in event) this.#file.add(event.step, { summary })
  }

  close(): void {
    this.#file.close()
  }
}

function valuesOf(event: TrainEvent): SummaryValue[] {
  if (event.type === 'step') {
    return [
      { tag: 'train/loss', scalar: event.loss },
      { tag: 'train/accuracy', scalar: event.accuracy },
      { tag: 'train/gradient_norm', scalar: event.gradientNorm },
      { tag: 'train/learning_rate', scalar: event.lr },
      ...(event.logScale === null ? [] : [{ tag: 'train/logit_scale', scalar: event.logScale }]),
      { tag: 'train/epoch', scalar: event.epoch },
      { tag: 'speed/samples_per_second', scalar: event.samplesPerSecond },
      { tag: 'speed/waiting_for_images', scalar: event.waiting },
    ]
  }
  if (event.type === 'validation') {
    return Object.entries(event.metrics).map(([name, scalar]) => ({ tag: `validation/${name}`, scalar }))
  }
  if (event.type === 'image') {
    const { name, png, width, height } = event
    return [{ tag: name, png, width, height }]
  }
  if (event.type === 'skipped') {
    return [{ tag: 'train/skipped', text: `loss ${event.loss}, images of the rows ${event.rows.join(', ')}` }]
  }
  return []
}
