import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { Config, type JsonObject } from '../../src/models/config.js'
import { cachedSnapshot, hubSnapshot, neededFiles } from '../../src/models/hub.js'
import { imageEncoderFromPretrained } from '../../src/models/image/index.js'
import { findPreset, listPresets } from '../../src/models/presets.js'
import { buildModel, fromPretrained } from '../../src/models/pretrained.js'
import { referenceCase } from './reference.js'

const folder = mkdtempSync(join(tmpdir(), 'cleft-pretrained-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Messages, as warned. */
function collector() {
  const messages: string[] = []
  return { messages, warn: (message: string) => void messages.push(message) }
}

describe('config.json', () => {
  const read = (values: JsonObject, logger = collector()) => new Config(values, logger)

  it('warns once of options that nobody knows', () => {
    const logger = collector()
    for (let time = 0; time < 2; time += 1) {
      const config = read({ model_type: 'x', width: 3, heads: 2, new_thing: 1, transformers_version: '5' }, logger)
      config.count('width')
      config.count('heads')
      config.finish()
    }
    expect(logger.messages).toEqual(['config.json: options that "x" does not know are ignored: "new_thing"'])
  })

  it('refuses what is known and not supported, and what is of another kind', async () => {
    expect(() => read({ layer_type: 'basic' }).only('layer_type', ['bottleneck'])).toThrow(
      /expected 'layer_type' to be "bottleneck", but it is .*basic.*, which is not supported/,
    )
    expect(() => read({ width: 'wide' }).count('width')).toThrow(/'width' to be a whole number above 0, but it is/)
    expect(() => read({}).count('width')).toThrow(/but it is missing; add it/)
    await expect(buildModel({ model_type: 'resnet', layer_type: 'wide' })).rejects.toThrow(/not supported/)
    await expect(buildModel({ model_type: 'dinov2', hidden_act: 'maxout' })).rejects.toThrow(/maxout/)
    await expect(buildModel({ model_type: 'unheard-of' })).rejects.toThrow(/model_type of .*dinov2.*says 'unheard-of'/)
  })
})

describe('presets', () => {
  it('are there for image and text models, with a licence', async () => {
    for (const name of [
      'dinov2_vitb14_reg',
      'dinov2_vitg14',
      'resnet50',
      'biomedlm',
      'meditron-7b',
      'bio_clinicalbert',
    ]) {
      const preset = findPreset(name)
      expect(preset?.licence, name).toBeTruthy()
      expect(preset?.repository, name).toMatch(/^[\w.-]+\/[\w.-]+$/)
    }
  })

  /** As transformers and torchvision count them, without heads and poolers. */
  const counts: Record<string, number> = {
    dinov2_vitb14_reg: 86_583_552,
    resnet50: 23_508_032,
    swin_tiny_patch4_window7_224: 27_519_354,
    clip_vitb32: 87_456_000,
    deit_base_patch16_224: 85_798_656,
  }

  it.each(Object.entries(counts))('%s has the parameters that it is known for', async (name, count) => {
    using model = await buildModel(name, { device: 'meta' })
    expect(model.parameters().reduce((sum, each) => sum + each.numel(), 0)).toBe(count)
  })

  it('are found in folders of the user first', async () => {
    const presets = join(folder, 'presets')
    mkdirSync(presets)
    const config = { model_type: 'vit', hidden_size: 8, num_attention_heads: 2, num_hidden_layers: 1 }
    const preset = { kind: 'image', licence: 'ours', folder: referenceCase('vit').model, config }
    writeFileSync(join(presets, 'ours.json'), JSON.stringify(preset))
    process.env.CLEFT_PRESETS = presets
    try {
      expect(listPresets()).toContain('ours')
      using model = await fromPretrained('ours')
      expect(model.parameters().length).toBeGreaterThan(10)
    } finally {
      delete process.env.CLEFT_PRESETS
    }
    expect(listPresets()).not.toContain('ours')
    await expect(fromPretrained('ours')).rejects.toThrow(
      /a folder, a repository of the hub .* or a preset \(.*biomedlm/,
    )
  })
})

describe('the hub', () => {
  const cacheFolder = join(folder, 'hub')
  const snapshots = join(cacheFolder, 'models--someone--tiny-vit', 'snapshots')

  it('is its cache folder when offline', async () => {
    mkdirSync(join(snapshots, '..', 'refs'), { recursive: true })
    cpSync(referenceCase('vit').model, join(snapshots, 'abc123'), { recursive: true })
    expect(cachedSnapshot('someone/tiny-vit', { cacheFolder })).toBe(join(snapshots, 'abc123'))
    // a second snapshot: now the reference says which
    cpSync(referenceCase('vit').model, join(snapshots, 'def456'), { recursive: true })
    expect(cachedSnapshot('someone/tiny-vit', { cacheFolder })).toBeNull()
    writeFileSync(join(snapshots, '..', 'refs', 'main'), 'def456\n')
    expect(cachedSnapshot('someone/tiny-vit', { cacheFolder })).toBe(join(snapshots, 'def456'))
    expect(cachedSnapshot('someone/tiny-vit', { cacheFolder, revision: 'abc123' })).toBe(join(snapshots, 'abc123'))
    using model = await imageEncoderFromPretrained('someone/tiny-vit', { cacheFolder, offline: true })
    expect(model.featureWidth).toBe(48)
  })

  it('is not asked when offline', async () => {
    await expect(hubSnapshot('someone/else', { cacheFolder, offline: true })).rejects.toThrow(
      /expected 'someone\/else' in the cache .* but it is not there and HF_HUB_OFFLINE is set/,
    )
    expect(existsSync(join(cacheFolder, 'models--someone--else'))).toBe(false)
  })

  it('gives weights once, safetensors first', () => {
    const files = [
      'config.json',
      'model.safetensors',
      'pytorch_model.bin',
      'tf_model.h5',
      'tokenizer.json',
      'onnx/model.onnx',
      'README.md',
      'LICENSE',
    ]
    expect(neededFiles(files)).toEqual(['config.json', 'tokenizer.json', 'LICENSE', 'model.safetensors'])
    expect(
      neededFiles(['config.json', 'pytorch_model-00001-of-00002.bin', 'pytorch_model.bin.index.json']),
    ).toHaveLength(3)
  })
})
