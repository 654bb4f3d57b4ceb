# The way without CMake: the same sources and settings as CMakeLists.txt. `npx cleft setup` gives the paths through the
# environment; nothing is searched for or downloaded.
{
  'variables': {
    'cleft_cuda': '<!(node -p "process.env.CLEFT_TORCH_CUDA || \'off\'")',
    'cleft_werror': '<!(node -p "process.env.CLEFT_WARNINGS_AS_ERRORS || \'off\'")',
    'cleft_lib': '<!(node -p "process.env.CLEFT_TORCH_LIB")',
    'cleft_gcc': '<!(node -p "String(require(\'node:child_process\').spawnSync((process.env.CXX || \'g++\') + \' --version\', { shell: true }).stdout).includes(\'Free Software Foundation\') ? \'on\' : \'off\'")',
  },
  'targets': [
    {
      'target_name': 'cleft',
      'sources': [
        '<!@(node -p "require(\'node:fs\').readdirSync(\'native\').filter((name) => name.endsWith(\'.cpp\')).sort().map((name) => \'native/\' + name).join(\'\\n\')")',
      ],
      'defines': [
        'NAPI_VERSION=8',
        'NODE_ADDON_API_CPP_EXCEPTIONS',
        '_GLIBCXX_USE_CXX11_ABI=1',
        'NDEBUG',
      ],
      'cflags!': ['-fno-exceptions', '-fno-rtti'],
      'cflags_cc!': ['-fno-exceptions', '-fno-rtti', '-std=gnu++17', '-std=c++17'],
      # As system folders, so that the headers of others raise no warnings of ours.
      'cflags_cc': [
        '-std=c++20', '-O2', '-Wall', '-Wextra', '-fPIC', '-fexceptions', '-frtti', '-fvisibility=hidden',
        '-fvisibility-inlines-hidden',
        '<!@(node -p "[process.env.CLEFT_TORCH_INCLUDES, process.env.CLEFT_NODE_INCLUDES].join(\'\\n\').split(\'\\n\').map((folder) => \'-isystem\' + folder).join(\'\\n\')")',
        # What the wheels lack of Gloo; where a libtorch ships Gloo's own headers they are found first.
        '-idirafter', '"<(module_root_dir)/native/declarations"',
      ],
      'ldflags': ['-L<(cleft_lib)', '-Wl,-rpath,<(cleft_lib)', '-Wl,--no-as-needed'],
      'libraries': [
        '<!@(node -p "process.env.CLEFT_TORCH_LIBRARIES.split(\'\\n\').map((name) => \'-l\' + name).join(\'\\n\')")',
      ],
      'conditions': [
        ['cleft_cuda=="on"', { 'defines': ['CLEFT_TORCH_CUDA'] }],
        ['cleft_werror=="on"', { 'cflags_cc': ['-Werror'] }],
        # at::parallel_for is a header's and serial without it. Nothing is linked for it: libtorch brings GCC's libgomp.
        ['OS=="linux" and cleft_gcc=="on"', { 'cflags_cc': ['-fopenmp'] }],
        ['OS=="mac"', {
          'xcode_settings': {
            'CLANG_CXX_LANGUAGE_STANDARD': 'c++20',
            'CLANG_CXX_LIBRARY': 'libc++',
            'GCC_ENABLE_CPP_EXCEPTIONS': 'YES',
            'GCC_ENABLE_CPP_RTTI': 'YES',
            'GCC_SYMBOLS_PRIVATE_EXTERN': 'YES',
            'OTHER_CPLUSPLUSFLAGS': [
              '<!@(node -p "[process.env.CLEFT_TORCH_INCLUDES, process.env.CLEFT_NODE_INCLUDES].join(\'\\n\').split(\'\\n\').map((folder) => \'-isystem\' + folder).join(\'\\n\')")',
              '-idirafter', '"<(module_root_dir)/native/declarations"',
            ],
            'OTHER_LDFLAGS': ['-L<(cleft_lib)', '-Wl,-rpath,<(cleft_lib)'],
          },
        }],
      ],
    },
  ],
}
