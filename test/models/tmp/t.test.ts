import { it } from 'vitest'
import { buildModel } from '../../../src/models/index.js'
import type { ImageEncoder } from '../../../src/models/image/index.js'
import * as torch from '../../../src/torch/index.js'
it('t', async () => {
  const m = (await buildModel({ model_type: 'dinov2_with_registers', hidden_size: 192, num_hidden_layers: 12, num_attention_heads: 3, image_size: 224, patch_size: 14 })) as ImageEncoder
  const x = torch.randn([8, 3, 224, 224])
  for (const bf of [false, true]) {
    const times: number[] = []
    for (let i = 0; i < 6; i++) {
      const t = performance.now()
      torch.scope(() => {
        const run = () => m.forward(x, { norm: false }).prenorm.all.mean(1).float().square().sum()
        ;(bf ? torch.autocast({ device: 'cpu' }, run) : run()).backward()
        m.zeroGrad()
      })
      times.push(performance.now() - t)
    }
    console.log('ours', bf ? 'bf16' : 'f32', Math.min(...times.slice(1)).toFixed(0), 'ms')
  }
}, 120000)
