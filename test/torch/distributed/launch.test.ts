import { describe, expect, it } from 'vitest'
import { firstHost, readLaunchEnvironment } from '../../../src/torch/distributed/environment.js'
import { LaunchError, launch } from '../../../src/torch/distributed/launch.js'

const torchrun = { RANK: '3', WORLD_SIZE: '4', LOCAL_RANK: '1', MASTER_ADDR: 'node7', MASTER_PORT: '29500' }
const slurm = {
  SLURM_PROCID: '5',
  SLURM_NTASKS: '8',
  SLURM_LOCALID: '1',
  SLURM_STEP_NODELIST: 'gpu[003-005,9]',
  SLURM_JOB_ID: '1234567',
}

describe('readLaunchEnvironment', () => {
  it('reads what torchrun sets', () => {
    expect(readLaunchEnvironment(torchrun)).toEqual({
      rank: 3,
      worldSize: 4,
      localRank: 1,
      masterAddress: 'node7',
      masterPort: 29500,
      launcherKeepsStore: false,
      attempt: '0',
    })
    // torchrun's agent keeps the store itself, and counts its restarts
    const elastic = { ...torchrun, TORCHELASTIC_USE_AGENT_STORE: 'True', TORCHELASTIC_RESTART_COUNT: '2' }
    expect(readLaunchEnvironment(elastic)).toMatchObject({ launcherKeepsStore: true, attempt: '2' })
  })

  it('reads what Slurm sets, the same on all tasks of a step', () => {
    const found = readLaunchEnvironment(slurm)
    expect(found).toMatchObject({ rank: 5, worldSize: 8, localRank: 1, masterAddress: 'gpu003' })
    const other = readLaunchEnvironment({ ...slurm, SLURM_PROCID: '0', SLURM_LOCALID: '0' })
    expect(other?.masterPort).toBe(found?.masterPort)
    expect(found?.masterPort).toBeGreaterThan(1024)
    expect(readLaunchEnvironment({ ...slurm, MASTER_PORT: '4000', MASTER_ADDR: 'a' })).toMatchObject({
      masterAddress: 'a',
      masterPort: 4000,
    })
  })

  it('is null for a process alone', () => {
    expect(readLaunchEnvironment({})).toBeNull()
    expect(readLaunchEnvironment({ SLURM_NTASKS: '4', SLURM_JOB_NODELIST: 'a' })).toBeNull()
  })

  it.each([
    [{ ...torchrun, RANK: '4' }, /rank 4 of 4 came/],
    [{ ...torchrun, RANK: 'one' }, /RANK was expected to be a whole number, and is 'one'/],
    [{ ...torchrun, MASTER_PORT: undefined }, /MASTER_PORT was expected .* is not set/],
    [{ ...torchrun, MASTER_PORT: '70000' }, /at most 65535/],
    [{ ...torchrun, MASTER_ADDR: '' }, /MASTER_ADDR was expected/],
    [{ ...slurm, SLURM_NTASKS: undefined }, /SLURM_NTASKS was expected/],
  ])('says what is wrong', (variables, message) => {
    expect(() => readLaunchEnvironment(variables)).toThrow(message)
  })

  it.each([
    ['node1', 'node1'],
    ['gpu[003-005,9],login', 'gpu003'],
    ['gpu[7]', 'gpu7'],
    ['rack[1-2].site,b', 'rack1.site'],
    ['a,b', 'a'],
  ])('the first of %s is %s', (list, host) => {
    expect(firstHost(list)).toBe(host)
  })
})

describe('launch', () => {
  const node = (code: string): [string, ...string[]] => [process.execPath, '-e', code]

  it('gives each rank its environment, and its lines their rank', async () => {
    const lines: string[] = []
    const code = `const e = process.env
      console.log([e.RANK, e.LOCAL_RANK, e.WORLD_SIZE, e.MASTER_ADDR, Number(e.MASTER_PORT) > 0, e.MINE].join(' '))
      process.stderr.write('an end without a newline')`
    await launch(3, node(code), {
      environment: { MINE: 'yes' },
      onLine: (line, rank, stream) => lines.push(`${rank} ${stream}: ${line}`),
    })
    expect(lines.sort()).toEqual(
      [0, 1, 2].flatMap((rank) => [
        `${rank} stderr: an end without a newline`,
        `${rank} stdout: ${rank} ${rank} 3 127.0.0.1 true yes`,
      ]),
    )
  })

  it('stops the others when one fails, also those that do not listen', async () => {
    const lines: string[] = []
    const code = `const rank = process.env.RANK
      if (rank === '1') process.on('SIGTERM', () => { console.log('stopping'); process.exit(0) })
      if (rank === '2') process.on('SIGTERM', () => {})
      console.log('up')
      if (rank === '0') setTimeout(() => process.exit(3), 500)
      else setInterval(() => {}, 1000)`
    const failure = await launch(3, node(code), {
      patience: 300,
      onLine: (line, rank) => lines.push(`${rank}: ${line}`),
    }).catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(LaunchError)
    expect(failure).toMatchObject({
      message: 'rank 0 of 3 ended with status 3; the others were stopped',
      rank: 0,
      exitStatus: 3,
    })
    expect(lines.sort()).toEqual(['0: up', '1: stopping', '1: up', '2: up'])
  })

  it('says what ended a rank', async () => {
    await expect(launch(1, node("process.kill(process.pid, 'SIGKILL')"))).rejects.toMatchObject({
      message: 'rank 0 of 1 was ended by SIGKILL',
      exitStatus: 137,
    })
    await expect(launch(2, ['/no/such/program'])).rejects.toThrow(/rank \d of 2 did not start: .*ENOENT/)
    await expect(launch(0, node(''))).rejects.toThrow(/from 1 on, but received 0/)
  })
})
