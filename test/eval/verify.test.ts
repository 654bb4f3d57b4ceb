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

  // the run takes its text features at the first padding
  it('replays a run whose padding is another token than 0', async () => {
    const copy = changed('trajectory', () => {})
    const swapped = (name: string, change: (tensors: Record<string, torch.Tensor>) => void) =>
      torch.scope(() => {
        const file = join(copy, name)
        const source = torch.openSafetensors(file)
        const tensors = Object.fromEntries([...source.names].map((each) => [each, source.tensor(each).clone()]))
        source.close()
        change(tensors)
        torch.saveSafetensors(tensors, file, { metadata: { format: 'pt' } })
      })
    swapped('io.safetensors', (tensors) => {
      const ids = tensors['in.caption_ids']!
      tensors['in.caption_ids'] = torch.where(ids.eq(0), 2, torch.where(ids.eq(2), 0, ids))
    })
    swapped('text/model.safetensors', (tensors) => {
      const name = Object.keys(tensors).find((each) => each.endsWith('wte.weight'))!
      const rows = torch.arange(tensors[name]!.size(0))
      tensors[name] = tensors[name]!.indexSelect(0, torch.where(rows.eq(0), 2, torch.where(rows.eq(2), 0, rows)))
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
