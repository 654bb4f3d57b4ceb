import * as torch from '../../torch/index.js'
import { parseOptions, type TrainOptions } from '../train.js'
import type { Plan, PlanOptions } from './plan.js'
import { planPretraining } from './pretrain.js'
import { planFineTuning, planProbe, planPrompt } from './stages.js'

export type { Plan, Shape, StepMemory, Suggestion } from './plan.js'

/**
 * Predicts what a step of a stage takes of memory, and which batch sizes fit. Models are measured on the CPU with few layers,
 * images and texts, so that nothing of the run's own size is needed, neither weights nor a GPU; of a stage that begins with a
 * checkpoint its config.json is.
 *
 * @param given `available`: bytes that the device has; default: the GPU's memory, where the run would use one. `device`: whose
 *   kernels to plan with; default: 'cuda' where the run would use a GPU, or its memory is given, unless the options say 'cpu'
 * @example console.log((await planStep({ recipe: 'cleft-chexpert', data: { root }, out: 'runs/a' }, { available: 24 * 2 ** 30 })).memory.total)
 * @throws RangeError for options that do not fit
 */
export async function planStep(
  options: TrainOptions | (Omit<TrainOptions, 'out'> & { out?: string }),
  given: { available?: number | null; device?: 'cpu' | 'cuda' } = {},
): Promise<Plan> {
  const full = parseOptions({ out: 'run', ...options } as TrainOptions)
  const device = torch.deviceOf(full.device)
  const isOnGpu = device.startsWith('cuda')
  const gpu = isOnGpu ? torch.info().devices[Number(device.split(':')[1] ?? 0)] : undefined
  const isMeantForGpu = isOnGpu || (full.device === 'auto' && given.available != null)
  const place: PlanOptions = {
    available: given.available ?? gpu?.totalMemory ?? null,
    device: given.device ?? (isMeantForGpu ? 'cuda' : 'cpu'),
  }
  if (full.stage === 'pretrain') return await planPretraining(full, place)
  if (full.stage === 'linear-probe') return await planProbe(full, place)
  if (full.stage === 'fine-tune') return await planFineTuning(full, place)
  return await planPrompt(full, place)
}
