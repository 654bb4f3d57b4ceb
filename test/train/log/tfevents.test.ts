import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Checksum, crc32c, encodeEvent, masked, record, TfEventFile } from '../../../src/train/log/tfevents.js'
import { readRecords } from './records.js'

const here = new URL('./', import.meta.url).pathname
const folder = mkdtempSync(join(tmpdir(), 'cleft-events-'))
let checksum: Checksum
beforeAll(async () => {
  checksum = await crc32c()
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe('event files of TensorBoard', () => {
  it('have the checksums that TensorBoard computes', () => {
    const rows = JSON.parse(readFileSync(join(here, 'crc32c.json'), 'utf8')) as {
      hex: string
      crc: number
      masked: number
    }[]
    expect(rows.length).toBeGreaterThan(4)
    for (const row of rows) {
      const crc = checksum(Buffer.from(row.hex, 'hex'))
      expect([crc, masked(crc)]).toEqual([row.crc, row.masked])
    }
  })

  it("are TensorBoard's own writer's, byte by byte", () => {
    const png = Uint8Array.from({ length: 256 }, (_, k) => k)
    const events = [
      encodeEvent(1700000000.25, 0, { fileVersion: 'brain.Event:2' }),
      encodeEvent(1700000001.5, 7, 'session-start'),
      encodeEvent(1700000002, 3_000_000_000, {
        summary: [
          { tag: 'train/loss', scalar: 0.1 },
          { tag: 'train/zero', scalar: 0 },
        ],
      }),
      encodeEvent(1700000003, 0, {
        summary: [
          { tag: 'configuration', text: 'größer als 1' },
          { tag: 'input', png, width: 300, height: 2 },
        ],
      }),
    ]
    const bytes = Buffer.concat(events.map((event) => record(event, checksum)))
    expect(bytes.equals(readFileSync(join(here, 'events.tfevents')))).toBe(true)
  })

  it('are new files, in the order of their names, whole at any moment', () => {
    const first = new TfEventFile(folder, checksum, () => 1_700_000_000.5)
    first.add(1, { summary: [{ tag: 'a', scalar: 1 }] })
    expect(readRecords(readFileSync(first.path), checksum).length).toBe(2)
    const second = new TfEventFile(folder, checksum, () => 1_700_000_000.9)
    second.add(1, { summary: [{ tag: 'a', scalar: 2 }] })
    first.close()
    second.close()
    const names = readdirSync(folder).sort()
    expect(names.map((name) => join(folder, name))).toEqual([first.path, second.path])
    expect(names.every((name) => name.startsWith('events.out.tfevents.1700000000.'))).toBe(true)
  })
})
