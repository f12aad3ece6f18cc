#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    printf("%s, %s! I run as %d:%d.\n", GREETING, argc > 1 ? argv[1] : "you", (int)getuid(), (int)getgid());
    return 0;
}
