import { readFileSync, mkdirSync, writeFileSync, existsSync } from 'node:fs'
import { it } from 'vitest'
import { buildModel, fromPretrained } from '../../../src/models/index.js'
import * as torch from '../../../src/torch/index.js'
const hwm = () => /VmRSS:\s+(\d+)[\s\S]*/.exec(readFileSync('/proc/self/status', 'utf8'))![1]!
const peak = () => /VmHWM:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))![1]!
it('mem', async () => {
  const d = '/tmp/bigvit'
  if (!existsSync(d)) {
    mkdirSync(d)
    const config = { model_type: 'vit', hidden_size: 1024, num_hidden_layers: 24, num_attention_heads: 16, intermediate_size: 4096 }
    writeFileSync(d + '/config.json', JSON.stringify(config))
    using m = await buildModel(config)
    torch.scope(() => torch.saveSafetensors(Object.fromEntries(m.stateDict()), d + '/model.safetensors'))
    return
  }
  const before = Number(hwm())
  const t = performance.now()
  using m = await fromPretrained(d, { dtype: 'bfloat16' })
  console.log('ms', performance.now() - t, 'params MB bf16', m.parameters().reduce((s, p) => s + p.nbytes, 0) / 1e6)
  console.log('rss delta MB', (Number(hwm()) - before) / 1e3, 'peak delta', (Number(peak()) - before) / 1e3)
})
