import * as torch from '../../torch/index.js'
import { parseOptions, type TrainOptions } from '../train.js'
import { type Plan, planPretraining } from './plan.js'

export type { Plan, Shape, StepMemory, Suggestion } from './plan.js'

/**
 * Predicts what a step of pre-training takes of memory, and which batch sizes fit. Both towers are measured on the CPU with
 * few layers, images and texts, so that nothing of the run's own size is needed, neither weights nor a GPU.
 *
 * @param given `available`: bytes that the device has; default: the GPU's memory, where the run would use one. `device`: whose
 *   kernels to plan with; default: 'cuda' where the run would use a GPU, or its memory is given, unless the options say 'cpu'
 * @example console.log((await planStep({ recipe: 'cleft-chexpert', data: { root }, out: 'runs/a' }, { available: 24 * 2 ** 30 })).memory.total)
 * @throws RangeError for options that do not fit, and for stages other than pre-training
 */
export async function planStep(
  options: Omit<TrainOptions, 'out'> & { out?: string },
  given: { available?: number | null; device?: 'cpu' | 'cuda' } = {},
): Promise<Plan> {
  const full = parseOptions({ out: 'run', ...options } as TrainOptions)
  if (full.stage !== 'pretrain') {
    throw new RangeError(
      `plan: expected options of pre-training, but received stage '${full.stage}', which takes what its checkpoint's image encoder takes at most`,
    )
  }
  const device = torch.deviceOf(full.device)
  const isOnGpu = device.startsWith('cuda')
  const gpu = isOnGpu ? torch.info().devices[Number(device.split(':')[1] ?? 0)] : undefined
  const isMeantForGpu = isOnGpu || (full.device === 'auto' && given.available != null)
  return await planPretraining(full, {
    available: given.available ?? gpu?.totalMemory ?? null,
    device: given.device ?? (isMeantForGpu ? 'cuda' : 'cpu'),
  })
}
