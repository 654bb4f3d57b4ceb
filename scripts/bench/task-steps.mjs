// Steps of a stage as train() takes them (src/train/run.ts), one at a time and timed, without checkpoints and logs.
import * as torch from '../../dist/torch/index.js'
import { pretrainTask } from '../../dist/train/pretrain.js'
import { RandomStream } from '../../dist/train/random-stream.js'

const pause = () => new Promise(setImmediate)
const lastBackward = (output, gradient) => output.backward(gradient)

export class TaskSteps {
  static async open(options) {
    return new TaskSteps(await pretrainTask(options, { emit: () => {}, logger: { warn: () => {} } }, null), options)
  }

  constructor(task, { optimizer: { lr, betas, eps }, seed }) {
    this.task = task
    this.figures = task.start.figures
    this.random = new RandomStream(seed)
    const groups = task.groups.map(({ params, weightDecay }) => ({ params, weightDecay }))
    this.optimizer = new torch.optim.AdamW(groups, { lr, betas, eps })
    this.batches = this.endless()
  }

  async *endless() {
    while (true) yield* this.task.batches
  }

  /** Milliseconds of each of so many steps, from asking for the batch to the loss in hand. */
  async take(count) {
    const times = []
    for (let step = 0; step < count; step += 1) {
      const started = performance.now()
      const { value: batch } = await this.batches.next()
      await this.one(batch)
      batch[Symbol.dispose]()
      times.push(performance.now() - started)
    }
    return times
  }

  async one(batch) {
    const { task, optimizer, random } = this
    optimizer.zeroGrad()
    const { loss, held } = await task.step(batch, { random, pause, lastBackward })
    torch.scope(() => {
      torch.noGrad(() => torch.optim.getTotalNorm([...optimizer.parameters()].flatMap(({ grad }) => grad ?? [])))
      torch.optim.stepIfFinite(optimizer)
    })
    task.afterStep?.()
    loss.item()
    torch.dispose([loss, ...held])
  }

  async close() {
    await this.batches.return()
    this.optimizer.dispose()
    this.random[Symbol.dispose]()
    await this.task.close()
  }
}
