import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { verifyCase } from '../../src/eval/verify/index.js'
import * as torch from '../../src/torch/index.js'

const base = fileURLToPath(new URL('../reference', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'cleft-verify-'))
afterAll(() => rmSync(folder, { recursive: true }))

/** A copy of a case with something changed in case.json. */
function changed(name: string, change: (settings: Record<string, unknown>) => void): string {
  const copy = join(folder, `${name}-${Math.random()}`)
  cpSync(join(base, name), copy, { recursive: true })
  const file = join(copy, 'case.json')
  const settings = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>
  change(settings)
  writeFileSync(file, JSON.stringify(settings))
  return copy
}

/** Changes a file of tensors. */
function rewrite(file: string, change: (tensors: Map<string, torch.Tensor>) => void): void {
  torch.scope(() => {
    const tensors = (() => {
      using saved = torch.openSafetensors(file)
      return new Map(saved.names.map((each) => [each, saved.tensor(each).clone()]))
    })()
    change(tensors)
    torch.saveSafetensors(tensors, file)
  })
}

describe('verify', () => {
  // the other folders are of data sets and images
  const cases = readdirSync(base).filter((name) => existsSync(join(base, name, 'case.json')) && name !== 'dicom')
  it.each(cases)('%s agrees with Python', async (name) => {
    const found = await verifyCase(join(base, name))
    expect(found.problems).toEqual([])
    expect(found.pass).toBe(true)
  })

  it('fails where a setting is another', async () => {
    const slower = changed('optim-adamw', (settings) => {
      Object.assign(settings.settings as object, { lr: 0.0041 })
    })
    const found = await verifyCase(slower)
    expect(found.pass).toBe(false)
    expect(found.outputs.abs).toBeGreaterThan(1e-5)
  })

  it('fails where a model is configured otherwise', async () => {
    const copy = changed('gpt2-inverse-layer', () => {})
    const file = join(copy, 'model', 'config.json')
    const config = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>
    writeFileSync(file, JSON.stringify({ ...config, scale_attn_by_inverse_layer_idx: false }))
    expect((await verifyCase(copy)).pass).toBe(false)
  })

  it.each([
    'image.embeddings.cls_token',
    'image_proj.weight',
    'text.base_model.model.transformer.h.1.attn.c_attn.lora_A.default.weight',
    'text_proj.weight',
    'logit_scale',
  ])('fails where one gradient of a step is another: %s', async (name) => {
    const copy = changed('cleft-step', () => {})
    rewrite(join(copy, 'io.safetensors'), (tensors) => {
      torch.noGrad(() => tensors.get(`grad.${name}`)!.flatten().narrow(0, 0, 1).add_(0.01))
    })
    const found = await verifyCase(copy)
    expect(found.pass).toBe(false)
    expect(found.problems.join()).toContain(name)
  })

  // the run takes its text features at the first padding
  it('replays a run whose padding is another token than 0', async () => {
    const copy = changed('trajectory', () => {})
    const swapped = (ids: torch.Tensor) => torch.where(ids.eq(0), 2, torch.where(ids.eq(2), 0, ids))
    rewrite(join(copy, 'io.safetensors'), (tensors) => {
      tensors.set('in.caption_ids', swapped(tensors.get('in.caption_ids')!))
    })
    rewrite(join(copy, 'text/model.safetensors'), (tensors) => {
      const [name, table] = [...tensors].find(([each]) => each.endsWith('wte.weight'))!
      tensors.set(name, table.indexSelect(0, swapped(torch.arange(table.size(0)))))
    })
    expect((await verifyCase(copy)).problems).toEqual([])
  })

  it('says what cannot be read', async () => {
    await expect(verifyCase(folder)).rejects.toThrow(/expected a case with a file/)
    const strange = changed('metrics', (settings) => {
      settings.kind = 'magic'
    })
    await expect(verifyCase(strange)).rejects.toThrow("is of kind 'magic'")
  })
})
