// Prints the peak of the process's memory, in MB, over a forward and backward of many wide layers.
// node checkpoint-memory.mjs plain|checkpoint
import * as torch from '../../../dist/torch/index.js'

const layers = 24
const elements = 2 * 2 ** 20 // 8 MB an activation
const layer = (x) => x.sin().cos()

torch.scope(() => {
  let x = torch.full([elements], 0.5, { requiresGrad: true })
  const input = x
  for (let index = 0; index < layers; index += 1) {
    x = torch.scope(() => (process.argv[2] === 'checkpoint' ? torch.autograd.checkpoint(layer, [x]) : layer(x)))
  }
  x.sum().backward()
  if (!(Math.abs(input.grad.at(0).item()) > 0)) throw new Error('expected a gradient')
})
console.log(Math.round(process.resourceUsage().maxRSS / 1024))
