<# :
@echo off
rem SPDX-License-Identifier: Apache-2.0
rem Shares this machine's GPU on QUBIX. Double-click it, or:  @@FILE@@ status ^| update ^| uninstall
rem The rest of this file is PowerShell, which reads these lines as a comment.
set "QUBIX_WORD=%~1"
set "QUBIX_FILE=%~f0"
powershell -NoProfile -ExecutionPolicy Bypass -Command "& ([ScriptBlock]::Create((Get-Content -Raw -Encoding UTF8 -LiteralPath $env:QUBIX_FILE)))"
set "QUBIX_STATUS=%errorlevel%"
echo(
pause
exit /b %QUBIX_STATUS%
#>
# The worker needs Linux: on Windows it runs in WSL 2, where NVIDIA's driver for Windows serves CUDA. This installs it
# there, for your own user, and has Windows start it when you log on. No administrator is needed once WSL is there.
$ErrorActionPreference = 'Stop'
$task = 'QUBIX worker'

function Stop-With([string] $title, [string] $actual, [string] $required, [string] $remedy) {
    [Console]::Error.WriteLine("FAIL  ${title}: $actual`n      needs: $required`n      do:    $remedy")
    exit 1
}

$wsl = Get-Command wsl.exe -ErrorAction SilentlyContinue
if (-not $wsl) {
    Stop-With 'WSL' 'it is not on this machine' 'WSL 2 with a Linux distribution' 'Run as administrator: wsl --install   Restart, then start this file again'
}
# wsl.exe writes UTF-16.
$names = @((& wsl.exe --list --quiet) -join "`n" -replace "`0", '' -split '\r?\n' | Where-Object { $_.Trim() -and $_ -notlike 'docker-desktop*' })
if ($names.Count -eq 0) {
    Stop-With 'WSL' 'it has no Linux distribution' 'a distribution, such as Ubuntu' 'Run: wsl --install -d Ubuntu   Start this file again when it is there'
}
$distribution = $names[0].Trim()
$word = if ($env:QUBIX_WORD) { "--$($env:QUBIX_WORD)" } else { '' }
if ($word -notin @('', '--status', '--update', '--uninstall')) {
    Stop-With 'Usage' "there is no word $($env:QUBIX_WORD)" 'status, update, uninstall or none' 'Leave it out to install'
}
Write-Host "Using the distribution $distribution."

# The Linux installer, exactly as the coordinator made it.
$installer = @'
@@BASE64@@
'@ -replace '\s', ''
# By standard input: a command line is too short for it. The end of each line is Windows', which -i passes over.
$place = '$HOME/.qubix-worker-installer.sh'
$installer | & wsl.exe -d $distribution -e sh -c ('umask 077 && base64 -di >' + $place)
& wsl.exe -d $distribution -e sh -c ('sh ' + $place + ' ' + $word + '; status=$?; rm -f ' + $place + '; exit $status')
if ($LASTEXITCODE -ne 0) { exit $LASTEXITCODE }

if ($word -eq '--uninstall') {
    Unregister-ScheduledTask -TaskName $task -Confirm:$false -ErrorAction SilentlyContinue
} elseif ($word -eq '') {
    # WSL ends with the last session: this one stays.
    $hold = '~/.local/share/qubix-worker/bin/qubix-worker hold'
    $action = New-ScheduledTaskAction -Execute 'wsl.exe' -Argument ('-d "' + $distribution + '" -e sh -c "exec ' + $hold + '"')
    $trigger = New-ScheduledTaskTrigger -AtLogOn -User $env:USERNAME
    $settings = New-ScheduledTaskSettingsSet -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries -ExecutionTimeLimit ([TimeSpan]::Zero)
    Register-ScheduledTask -TaskName $task -Action $action -Trigger $trigger -Settings $settings -Force | Out-Null
    Start-ScheduledTask -TaskName $task
    Write-Host 'It starts again whenever you log on.'
}
