import { describe, expect, test } from 'vitest'
import {
  compareVersions,
  evaluateMarker,
  fitsSpecifier,
  isCudaLibrary,
  parseRequirement,
  parseRequirements,
} from '../../src/setup/requirements.js'

const linux = {
  sys_platform: 'linux',
  platform_system: 'Linux',
  platform_machine: 'x86_64',
  python_version: '3.12',
  implementation_name: 'cpython',
}

const METADATA = `Metadata-Version: 2.4
Name: torch
Requires-Dist: filelock
Requires-Dist: setuptools<82; python_version >= "3.12"
Requires-Dist: cuda-toolkit[cublas,cudart]==13.0.2; platform_system == "Linux"
Requires-Dist: nvidia-cudnn-cu13==9.15.1.9; platform_system == "Linux" and platform_machine == "x86_64"
Requires-Dist: nvidia-nccl-cu13 (==2.28.9) ; platform_system == 'Linux'
Requires-Dist: nvidia-windows==1; sys_platform == "win32"
Requires-Dist: nvidia-extra; extra == "more"
Requires-Dist: triton==3.6.0; platform_system == "Linux"

Requires-Dist: nvidia-in-the-description
`

describe('requirements', () => {
  test('those for this platform, with extras and versions', () => {
    expect(parseRequirements(METADATA, [], linux).filter(isCudaLibrary)).toEqual([
      { name: 'cuda-toolkit', extras: ['cublas', 'cudart'], specifier: '==13.0.2' },
      { name: 'nvidia-cudnn-cu13', extras: [], specifier: '==9.15.1.9' },
      { name: 'nvidia-nccl-cu13', extras: [], specifier: '==2.28.9' },
    ])
    expect(parseRequirements(METADATA, ['more'], linux).map((each) => each.name)).toContain('nvidia-extra')
    expect(
      parseRequirements(METADATA, [], { ...linux, platform_system: 'Windows', sys_platform: 'win32' }).filter(
        isCudaLibrary,
      ),
    ).toHaveLength(1)
  })

  test('names are normalized, and what is none is left out', () => {
    expect(parseRequirement('Nvidia_CUDA.Runtime >=12 , <13')).toEqual({
      name: 'nvidia-cuda-runtime',
      extras: [],
      specifier: '>=12,<13',
    })
    expect(parseRequirement('-- nothing')).toBeNull()
  })
})

test.each([
  ['platform_system == "Linux" and (platform_machine == "aarch64" or platform_machine == "x86_64")', true],
  ['platform_system != "Linux" or python_version < "3.9"', false],
  ['python_version >= "3.9"', true],
  ['"3.9" <= python_version', true],
  ['"linux" in sys_platform', true],
  ['platform_machine not in "x86_64 arm64"', false],
  ['extra == "gpu"', false],
])('the marker %s is %s', (marker, expected) => {
  expect(evaluateMarker(marker, linux)).toBe(expected)
})

test.each([
  ['13.1.0.3', '==13.1.*', true],
  ['13.10.0', '==13.1.*', false],
  ['13.0.88', '>=13.0.48,<14', true],
  ['14.0', '>=13.0.48,<14', false],
  ['2.13.0+cpu', '==2.13.0', true],
  ['2.13.0', '==2.13.0+cpu', false],
  ['2.13.0+cpu', '==2.13.0+cpu', true],
  ['1.4.5', '~=1.4.2', true],
  ['1.5.0', '~=1.4.2', false],
  ['1.0', '!=1.0.*', false],
  ['1.0', '', true],
  ['1.0', 'nonsense', false],
])('%s against %s is %s', (version, specifier, expected) => {
  expect(fitsSpecifier(version, specifier)).toBe(expected)
})

test('versions are compared by number', () => {
  expect(['2.9.1', '2.13.0', '2.13', '2.10.3'].sort(compareVersions)).toEqual(['2.9.1', '2.10.3', '2.13.0', '2.13'])
})
