import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const child = fileURLToPath(new URL('./close-child.mjs', import.meta.url))

it('threads that are closed while they work do not let the program end before they have', () => {
  // an answer that comes late made the thread rest, and a resting thread keeps no process
  for (let time = 0; time < 3; time += 1) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [child], { encoding: 'utf8' })
    expect(stderr).toBe('')
    expect(stdout).toBe('closed\n')
    expect(status).toBe(0)
  }
})
