/*
 * This tree stands where BCC looks for kernel headers, so that none have to be installed: the probe takes its
 * struct offsets from BTF (k3swatch/sources/btf.py) and needs no more than these few definitions.
 */
#define CONFIG_BPF_SYSCALL 1
